// Runs the CUDA kernels of csrc/ on the CPU: blocks one after the other in random order, the threads of a block in
// random order between two barriers. A kernel that depends on an order gives different results for different seeds; one
// that reads what nobody wrote meets garbage; one that leaves its array meets the address sanitizer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

namespace emulator {

using Random = std::mt19937_64;

// Uninitialised on a GPU, so filled with nonsense here.
inline void spoil(void* memory, size_t bytes) {
  if (bytes != 0) std::memset(memory, 0xA5, bytes);
}

class HostBlock {
 public:
  HostBlock(int64_t index, int threads, Random& random) : index_(index), order_(threads), random_(random) {
    std::iota(order_.begin(), order_.end(), 0);
  }

  template <typename Value>
  class PerThread {
   public:
    explicit PerThread(const HostBlock& block)
        : values_(static_cast<Value*>(std::aligned_alloc(64, (block.order_.size() * sizeof(Value) + 63) / 64 * 64)),
                  &std::free) {
      spoil(values_.get(), block.order_.size() * sizeof(Value));
    }
    Value& operator[](int thread) { return values_.get()[thread]; }

   private:
    std::unique_ptr<Value, void (*)(void*)> values_;
  };

  int64_t index() const { return index_; }

  template <class Function>
  void each_thread(Function function) {
    std::shuffle(order_.begin(), order_.end(), random_);
    for (const int thread : order_) function(thread);
  }

  template <class Function>
  void phase(Function function) {
    each_thread(function);
  }

 private:
  int64_t index_;
  std::vector<int> order_;
  Random& random_;
};

class Launcher {
 public:
  explicit Launcher(uint64_t seed) : random_(seed) {}

  template <class Kernel>
  void launch(int64_t blocks, const Kernel& kernel) {
    std::vector<int64_t> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), int64_t(0));
    std::shuffle(order.begin(), order.end(), random_);
    for (const int64_t index : order) {
      const auto shared = std::make_unique<typename Kernel::Shared>();
      spoil(shared.get(), sizeof(typename Kernel::Shared));
      HostBlock block(index, Kernel::kThreads, random_);
      kernel.run(block, *shared);
    }
    ++launches;
  }

  void clear(void* memory, size_t bytes) { std::memset(memory, 0, bytes); }

  int launches = 0;

 private:
  Random random_;
};

// Device memory: every array an allocation of its own, so that the sanitizer sees each of its ends.
class Memory {
 public:
  template <typename Value>
  Value* take(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(Value);
    void* piece = nullptr;
    if (posix_memalign(&piece, 64, bytes == 0 ? 1 : bytes) != 0) std::abort();
    spoil(piece, bytes);
    pieces_.emplace_back(piece, &std::free);
    return static_cast<Value*>(piece);
  }

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> pieces_;
};

}  // namespace emulator
