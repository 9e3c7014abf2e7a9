// Runs the CUDA kernels of csrc/ as a GPU does: every thread of a block is a thread, which runs the whole kernel and waits
// for the others at the end of each phase; two blocks run side by side. For the thread sanitizer, which sees what
// grid_emulator.h cannot: a barrier that is missing, and two blocks that write one place. Threads are slow to make, so it is
// four blocks of each launch that run so, and the others as in grid_emulator.h.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "grid_emulator.h"

namespace threaded {

class Barrier {
 public:
  explicit Barrier(int threads) {
    if (pthread_barrier_init(&barrier_, nullptr, static_cast<unsigned>(threads)) != 0) std::abort();
  }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

// A block as one of its threads sees it.
class ThreadOfBlock {
 public:
  ThreadOfBlock(int64_t index, int thread, Barrier& barrier) : index_(index), thread_(thread), barrier_(barrier) {}

  template <typename Value>
  struct PerThread {
    Value value;
    explicit PerThread(const ThreadOfBlock&) {}
    Value& operator[](int) { return value; }
  };

  int64_t index() const { return index_; }

  template <class Function>
  void each_thread(Function function) {
    function(thread_);
  }

  template <class Function>
  void phase(Function function) {
    function(thread_);
    barrier_.wait();
  }

 private:
  int64_t index_;
  int thread_;
  Barrier& barrier_;
};

struct Launcher {
  static constexpr int64_t kTogether = 2, kWatched = 4;  // blocks that run side by side, and in all

  template <class Kernel>
  void launch(int64_t blocks, const Kernel& kernel) const {
    const int64_t watched = std::min(blocks, kWatched);
    for (int64_t first = 0; first < watched; first += kTogether) {
      const int64_t last = std::min(first + kTogether, watched);
      std::vector<std::unique_ptr<typename Kernel::Shared>> shared;
      std::vector<std::unique_ptr<Barrier>> barriers;
      std::vector<std::thread> threads;
      for (int64_t index = first; index < last; ++index) {
        shared.push_back(std::make_unique<typename Kernel::Shared>());
        barriers.push_back(std::make_unique<Barrier>(Kernel::kThreads));
        for (int thread = 0; thread < Kernel::kThreads; ++thread) {
          threads.emplace_back([&kernel, index, thread, own = shared.back().get(), barrier = barriers.back().get()] {
            ThreadOfBlock block(index, thread, *barrier);
            kernel.run(block, *own);
          });
        }
      }
      for (std::thread& thread : threads) thread.join();
    }
    emulator::Random random(1);
    for (int64_t index = watched; index < blocks; ++index) {
      const auto shared = std::make_unique<typename Kernel::Shared>();
      emulator::HostBlock block(index, Kernel::kThreads, random);
      kernel.run(block, *shared);
    }
  }
};

}  // namespace threaded
