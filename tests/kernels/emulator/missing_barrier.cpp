// A kernel whose threads read what a neighbour wrote: with a barrier in between, or without, as its argument says. The
// thread sanitizer has to tell them apart.
#include <cstdio>
#include <cstring>

#include "thread_emulator.h"

struct ReadNeighbour {
  static constexpr int kThreads = 64;
  struct Shared {
    int value[kThreads];
  };
  bool waits;
  int* result;

  template <class Block>
  void run(Block& block, Shared& shared) const {
    const auto write = [&](int thread) { shared.value[thread] = thread; };
    if (waits) {
      block.phase(write);
    } else {
      block.each_thread(write);
    }
    block.each_thread([&](int thread) {
      result[block.index() * kThreads + thread] = shared.value[(thread + 1) % kThreads];
    });
  }
};

int main(int, char** arguments) {
  int result[3 * ReadNeighbour::kThreads];
  threaded::Launcher().launch(3, ReadNeighbour{std::strcmp(arguments[1], "waits") == 0, result});
  std::printf("done\n");
}
