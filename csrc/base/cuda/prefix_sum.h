// Exclusive prefix sums of 32-bit counts, in 64 bits: turns counts per cell or per strand into places to write to.
//
// Two kernels. ScanBlocks sums pieces of kScanItems counts, one block each; ScanTotals, a single block, sums the totals
// of the pieces. A reader adds the two (ScanMemory::start), which spares a third pass over the data.
// Cost: 4 bytes read and 8 written per count. Within a block: Hillis and Steele, Commun. ACM 29, 1170 (1986),
// doi:10.1145/7902.7903, whose doubling steps are phases of a block, so that it needs no warp shuffles.
#pragma once

#include <cstdint>

#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

constexpr int kScanThreads = 256;
constexpr int kScanPerThread = 8;
constexpr int kScanItems = kScanThreads * kScanPerThread;

struct ScanMemory {
  int64_t* local;   // (count,) sum of the earlier counts of the same piece
  int64_t* blocks;  // (num_blocks + 1,) totals of the pieces, then sum of the earlier pieces; last: the sum of all
  int64_t count;
  int64_t num_blocks;

  // Sum of all counts before `item`, an item below `count`.
  OPENMM_GNN_HOST_DEVICE int64_t start(int64_t item) const { return blocks[item / kScanItems] + local[item]; }
};

struct ScanShared {
  int64_t sum[2][kScanThreads];
};

// Inclusive sums of shared.sum[0][0 .. kScanThreads); returns which of the two rows holds them.
template <class Block>
OPENMM_GNN_HOST_DEVICE int scan_shared(Block& block, ScanShared& shared) {
  int from = 0;
  for (int step = 1; step < kScanThreads; step *= 2) {
    block.phase([&](int thread) {
      const int64_t below = thread >= step ? shared.sum[from][thread - step] : 0;
      shared.sum[1 - from][thread] = shared.sum[from][thread] + below;
    });
    from = 1 - from;
  }
  return from;
}

// One thread = kScanPerThread neighbouring counts.
template <class Plan>
struct ScanBlocks {
  static constexpr int kThreads = kScanThreads;
  using Shared = ScanShared;
  const Plan* plan;  // nullptr: not part of a search, always wanted
  const int32_t* counts;
  ScanMemory scan;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    if (plan != nullptr && !plan->active()) return;
    const int64_t first = block.index() * kScanItems;
    block.phase([&](int thread) {
      int64_t sum = 0;
      for (int k = 0; k < kScanPerThread; ++k) {
        const int64_t item = first + thread * kScanPerThread + k;
        if (item < scan.count) sum += counts[item];
      }
      shared.sum[0][thread] = sum;
    });
    const int row = scan_shared(block, shared);
    block.each_thread([&](int thread) {
      int64_t running = thread > 0 ? shared.sum[row][thread - 1] : 0;
      for (int k = 0; k < kScanPerThread; ++k) {
        const int64_t item = first + thread * kScanPerThread + k;
        if (item >= scan.count) break;
        scan.local[item] = running;
        running += counts[item];
      }
      if (thread == kScanThreads - 1) scan.blocks[block.index()] = running;
    });
  }
};

// One thread = one total at a time, kScanThreads of them per round; a single block. When all is summed, its first
// thread calls `finish(sum)`: the one place that knows how many pairs there are. `finish` runs also when there was no
// search.
template <class Plan, class Finish>
struct ScanTotals {
  static constexpr int kThreads = kScanThreads;
  using Shared = ScanShared;
  const Plan* plan;  // nullptr: not part of a search
  ScanMemory scan;
  Finish finish;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    int64_t carried = 0;
    if (plan == nullptr || plan->active()) {
      for (int64_t first = 0; first < scan.num_blocks; first += kScanThreads) {
        block.phase([&](int thread) {
          const int64_t item = first + thread;
          shared.sum[0][thread] = item < scan.num_blocks ? scan.blocks[item] : 0;
        });
        const int row = scan_shared(block, shared);
        block.each_thread([&](int thread) {
          const int64_t item = first + thread;
          if (item < scan.num_blocks) scan.blocks[item] = carried + (thread > 0 ? shared.sum[row][thread - 1] : 0);
        });
        const int64_t sum = shared.sum[row][kScanThreads - 1];
        block.phase([](int) {});  // all have read the sum before the next round overwrites it
        carried += sum;
      }
    }
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      scan.blocks[scan.num_blocks] = carried;
      finish(carried);
    });
  }
};

// For sums that nobody has to be told of.
struct FinishNothing {
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t) const {}
};

template <class Plan, class Launcher, class Finish>
void prefix_sum(Launcher& launcher, const Plan* plan, const int32_t* counts, const ScanMemory& scan,
                const Finish& finish) {
  launcher.launch(scan.num_blocks, ScanBlocks<Plan>{plan, counts, scan});
  launcher.launch(1, ScanTotals<Plan, Finish>{plan, scan, finish});
}

}  // namespace openmm_gnn::cuda
