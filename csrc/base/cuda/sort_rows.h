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
template <int kEnds, typename Index = int64_t>
struct RowSort {
  const Index* pairs;  // (kEnds, P)
  const float* distances;  // of pairs
  int64_t num_pairs, num_atoms;
  float cutoff;
  int32_t* counts;    // (N,) zero at first
  int32_t* arrival;   // (kEnds P,) place in the row, by end
  int32_t* unsorted;  // (kEnds P,)
  ScanMemory scan;    // of counts
  int32_t* starts;    // (N + 1,)
  int32_t* entries;   // (kEnds P,)
  const Index* others;  // (P,) the other atom of each pair

  // NaN, by which a list says that it is invalid, is no pair either: the operators answer it with NaN themselves. Nor is
  // a pair with an atom that there is not.
  OPENMM_GNN_HOST_DEVICE bool wanted(int64_t pair) const {
    const int64_t i = pairs[pair], j = others[pair];
    return i >= 0 && j >= 0 && i < num_atoms && j < num_atoms && distances[pair] < cutoff;
  }
  OPENMM_GNN_HOST_DEVICE int64_t receiver(int64_t end) const { return pairs[end % kEnds * num_pairs + end / kEnds]; }
};

template <int kEnds, typename Index = int64_t>
struct CountEnds {
  RowSort<kEnds, Index> sort;

  OPENMM_GNN_HOST_DEVICE void at(int64_t pair) const {
    if (!sort.wanted(pair)) return;
    for (int64_t end = kEnds * pair; end < kEnds * (pair + 1); ++end) {
      sort.arrival[end] = atomic_add(sort.counts + sort.receiver(end), 1);
    }
  }
};

template <int kEnds, typename Index = int64_t>
struct PlaceEnds {
  RowSort<kEnds, Index> sort;

  OPENMM_GNN_HOST_DEVICE void at(int64_t pair) const {
    if (!sort.wanted(pair)) return;
    for (int64_t end = kEnds * pair; end < kEnds * (pair + 1); ++end) {
      sort.unsorted[sort.scan.start(sort.receiver(end)) + sort.arrival[end]] = static_cast<int32_t>(end);
    }
  }
};

template <int kEnds, typename Index = int64_t>
struct RankEnds {
  RowSort<kEnds, Index> sort;

  OPENMM_GNN_HOST_DEVICE void at(int64_t place) const {
    const int64_t total = sort.scan.blocks[sort.scan.num_blocks];
    if (place <= sort.num_atoms) {
      sort.starts[place] = static_cast<int32_t>(place < sort.num_atoms ? sort.scan.start(place) : total);
    }
    if (place >= total) return;
    const int32_t end = sort.unsorted[place];
    const int64_t atom = sort.receiver(end), begin = sort.scan.start(atom), stop = begin + sort.counts[atom];
    int64_t rank = 0;
    for (int64_t other = begin; other < stop; ++other) rank += sort.unsorted[other] < end ? 1 : 0;
    sort.entries[begin + rank] = end;
  }
};

// The four steps.
template <int kEnds, typename Index>
void sort_rows(const StreamLauncher& launcher, const RowSort<kEnds, Index>& sort) {
  const int64_t ends = kEnds * sort.num_pairs;
  launcher.clear(sort.counts, static_cast<size_t>(sort.num_atoms) * sizeof(int32_t));
  launch_items(launcher, sort.num_pairs, CountEnds<kEnds, Index>{sort});
  prefix_sum<Plan<float>>(launcher, nullptr, sort.counts, sort.scan, FinishNothing{});
  launch_items(launcher, sort.num_pairs, PlaceEnds<kEnds, Index>{sort});
  launch_items(launcher, ends > sort.num_atoms ? ends : sort.num_atoms + 1, RankEnds<kEnds, Index>{sort});
}

// Lays out what a sort needs beside its arguments and results.
template <int kEnds, typename Index>
void take_sort(Carver& carver, RowSort<kEnds, Index>& sort) {
  sort.counts = carver.take<int32_t>(sort.num_atoms);
  sort.arrival = carver.take<int32_t>(kEnds * sort.num_pairs);
  sort.unsorted = carver.take<int32_t>(kEnds * sort.num_pairs);
  sort.scan = take_scan(carver, sort.num_atoms);
}

}  // namespace openmm_gnn::cuda
