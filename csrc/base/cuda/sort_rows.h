// pair_rows: the ends of the pairs, sorted by the atom that receives (../pair_rows.h); edge_rows: edges, which have one
// such end (encoders/messages.h).
//
// CountEnds and PlaceEnds: one thread = one pair. Counting with an atomic gives each end a place in its atom's row, in
// an order of arrival that changes from run to run; RankEnds, one thread = one end, then counts the smaller ends of its
// row, which is its place for good: rows have some tens of entries. Cost per pair: 24 bytes read and 16 written by the
// first two, and by the last twice the length of a row, 4 bytes each, from the cache.
#pragma once

#include "vector_gamd/pair_rows.h"
#include "base/cuda/stream.h"
#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

// Scratch and output of one sort.
template <int kEnds>
struct RowSort {
  const int64_t* pairs;  // (kEnds, P)
  const float* distances;  // of pairs
  int64_t num_pairs, num_atoms;
  float cutoff;
  int32_t* counts;    // (N,) zero at first
  int32_t* arrival;   // (kEnds P,) place in the row, by end
  int32_t* unsorted;  // (kEnds P,)
  ScanMemory scan;    // of counts
  int32_t* starts;    // (N + 1,)
  int32_t* entries;   // (kEnds P,)

  // NaN, by which a list says that it is invalid, is no pair either: the operators answer it with NaN themselves.
  OPENMM_GNN_HOST_DEVICE bool wanted(int64_t pair) const {
    return pairs[pair] >= 0 && distances[pair] < cutoff;
  }
  OPENMM_GNN_HOST_DEVICE int64_t receiver(int64_t end) const { return pairs[end % kEnds * num_pairs + end / kEnds]; }
};

template <int kEnds>
struct CountEnds {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  RowSort<kEnds> sort;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t pair = first + thread;
      if (pair >= sort.num_pairs || !sort.wanted(pair)) return;
      for (int64_t end = kEnds * pair; end < kEnds * (pair + 1); ++end) {
        sort.arrival[end] = atomic_add(sort.counts + sort.receiver(end), 1);
      }
    });
  }
};

template <int kEnds>
struct PlaceEnds {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  RowSort<kEnds> sort;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t pair = first + thread;
      if (pair >= sort.num_pairs || !sort.wanted(pair)) return;
      for (int64_t end = kEnds * pair; end < kEnds * (pair + 1); ++end) {
        sort.unsorted[sort.scan.start(sort.receiver(end)) + sort.arrival[end]] = static_cast<int32_t>(end);
      }
    });
  }
};

template <int kEnds>
struct RankEnds {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  RowSort<kEnds> sort;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads, total = sort.scan.blocks[sort.scan.num_blocks];
    block.each_thread([&](int thread) {
      const int64_t place = first + thread;
      if (place <= sort.num_atoms) {
        sort.starts[place] = static_cast<int32_t>(place < sort.num_atoms ? sort.scan.start(place) : total);
      }
      if (place >= total) return;
      const int32_t end = sort.unsorted[place];
      const int64_t atom = sort.receiver(end), begin = sort.scan.start(atom), stop = begin + sort.counts[atom];
      int64_t rank = 0;
      for (int64_t other = begin; other < stop; ++other) rank += sort.unsorted[other] < end ? 1 : 0;
      sort.entries[begin + rank] = end;
    });
  }
};

// The four steps.
template <int kEnds>
void sort_rows(const StreamLauncher& launcher, const RowSort<kEnds>& sort) {
  const int64_t blocks = blocks_for(sort.num_pairs, CountEnds<kEnds>::kThreads), ends = kEnds * sort.num_pairs;
  const int64_t places = ends > sort.num_atoms ? ends : sort.num_atoms + 1;
  launcher.clear(sort.counts, static_cast<size_t>(sort.num_atoms) * sizeof(int32_t));
  launcher.launch(blocks, CountEnds<kEnds>{sort});
  launcher.launch(sort.scan.num_blocks, ScanBlocks<Plan<float>>{nullptr, sort.counts, sort.scan});
  launcher.launch(1, ScanTotals<Plan<float>, FinishNothing>{nullptr, sort.scan, FinishNothing{}});
  launcher.launch(blocks, PlaceEnds<kEnds>{sort});
  launcher.launch(blocks_for(places, RankEnds<kEnds>::kThreads), RankEnds<kEnds>{sort});
}

// Lays out what a sort needs beside its arguments and results.
template <int kEnds>
void take_sort(Carver& carver, RowSort<kEnds>& sort) {
  sort.counts = carver.take<int32_t>(sort.num_atoms);
  sort.arrival = carver.take<int32_t>(kEnds * sort.num_pairs);
  sort.unsorted = carver.take<int32_t>(kEnds * sort.num_pairs);
  sort.scan = take_scan(carver, sort.num_atoms);
}

}  // namespace openmm_gnn::cuda
