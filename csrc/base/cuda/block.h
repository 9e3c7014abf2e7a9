// How a kernel is written here: as a function of a block, in phases, so that a GPU and a plain CPU program run it
// alike.
//
//   struct SomeKernel {
//     static constexpr int kThreads = 256;      // threads of a block
//     struct Shared { ... };                    // shared memory of a block
//     ... pointers and numbers ...
//     template <class Block> OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
//       block.phase([&](int thread) { ... });        // every thread of the block, then a barrier
//       block.each_thread([&](int thread) { ... });  // every thread, no barrier: the last phase
//     }
//   };
//
// Where no thread needs another, a kernel is a struct with `void at(int64_t item) const`, launched by launch_items.
//
// A variable that a thread keeps from one phase to the next is a `typename Block::template PerThread<Value>`: a
// register on the GPU, one array element per thread in the emulator (tests/kernels/emulator). Within a phase threads
// must not depend on each other; the emulator runs them in random order under the address sanitizer. Warp votes and
// shuffles do not exist here on purpose: rows are split into strands (search_cells.h) and counts summed by scans
// (prefix_sum.h), so nothing is left for a warp to vote on, and the order of the results does not depend on the
// schedule.
#pragma once

#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn::cuda {

// Shared memory of a kernel that needs none.
struct NoShared {};

#if defined(__CUDACC__)
struct DeviceBlock {
  template <typename Value>
  struct PerThread {
    Value value;
    OPENMM_GNN_HOST_DEVICE explicit PerThread(const DeviceBlock&) {}
    OPENMM_GNN_HOST_DEVICE Value& operator[](int) { return value; }
  };

  OPENMM_GNN_HOST_DEVICE int64_t index() const {
#if defined(__CUDA_ARCH__)
    return blockIdx.x;
#else
    return 0;
#endif
  }

  template <class Function>
  OPENMM_GNN_HOST_DEVICE void each_thread(Function function) {
#if defined(__CUDA_ARCH__)
    function(static_cast<int>(threadIdx.x));
#endif
  }

  template <class Function>
  OPENMM_GNN_HOST_DEVICE void phase(Function function) {
    each_thread(function);
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }
};
#endif

// Atomics of global memory.
OPENMM_GNN_HOST_DEVICE int32_t atomic_add(int32_t* address, int32_t amount) {
#if defined(__CUDA_ARCH__)
  return atomicAdd(address, amount);
#else
  return __atomic_fetch_add(address, amount, __ATOMIC_RELAXED);
#endif
}

OPENMM_GNN_HOST_DEVICE void atomic_add(int64_t* address, int64_t amount) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(amount));
#else
  __atomic_fetch_add(address, amount, __ATOMIC_RELAXED);
#endif
}

OPENMM_GNN_HOST_DEVICE void atomic_min(int64_t* address, int64_t value) {
#if defined(__CUDA_ARCH__)
  // Reading first keeps a million bad atoms from queueing up at one address.
  if (*static_cast<volatile int64_t*>(address) > value) {
    atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(value));
  }
#else
  int64_t found = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (found > value && !__atomic_compare_exchange_n(address, &found, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

// Bits of a word that are set, and the lowest of them; the word is not 0 for the latter.
OPENMM_GNN_HOST_DEVICE int bits_of(uint32_t word) {
#if defined(__CUDA_ARCH__)
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

OPENMM_GNN_HOST_DEVICE int lowest_bit(uint32_t word) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}

// Many threads may raise one flag: they all store the same value, so no atomic operation is needed; and others of the same
// kernel may look whether it is raised yet.
OPENMM_GNN_HOST_DEVICE void raise_flag(int32_t* flag) {
#if defined(__CUDA_ARCH__)
  *static_cast<volatile int32_t*>(flag) = 1;
#else
  __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
#endif
}

OPENMM_GNN_HOST_DEVICE bool is_raised(const int32_t* flag) {
#if defined(__CUDA_ARCH__)
  return *static_cast<const volatile int32_t*>(flag) != 0;
#else
  return __atomic_load_n(flag, __ATOMIC_RELAXED) != 0;
#endif
}

// Blocks of `threads` that cover `work` items.
inline int64_t blocks_for(int64_t work, int threads) { return (work + threads - 1) / threads; }

// The kernel of items that have nothing in common: one thread = one item, for which it calls `items.at(item)`.
template <class Items>
struct EachItem {
  static constexpr int kThreads = 128;
  using Shared = NoShared;
  Items items;
  int64_t count;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      if (first + thread < count) items.at(first + thread);
    });
  }
};

template <class Items, class Launcher>
void launch_items(Launcher&& launcher, int64_t count, const Items& items) {
  launcher.launch(blocks_for(count, EachItem<Items>::kThreads), EachItem<Items>{items, count});
}

}  // namespace openmm_gnn::cuda
