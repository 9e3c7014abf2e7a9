// All pairs of a system on the CPU.
#pragma once

#include <memory>
#include <vector>

#include "neighbors/cpu/row_scan.h"

namespace openmm_gnn {

struct PairQuestion {
  double cutoff;
  bool full;
  int num_threads;
};

// Finds pairs in two passes over the cells: count each atom's pairs, then write them where the counts say.
template <typename T>
class PairFinder {
 public:
  // Sorts and counts; returns the number of pairs.
  int64_t count(const System<T>& system, const PairQuestion& question, bool keep_wraps);

  // After count(): pairs, vectors (P, 3) and distances (P,).
  void write_geometry(int64_t* i, int64_t* j, T* vectors, T* distances);

  // After count(keep_wraps = true): pairs and shifts (P, 3) for the raw positions.
  template <typename Index>
  void write_shifts(Index* i, Index* j, int32_t* shifts);

 private:
  struct Workspace {
    Candidates<T> candidates;
    Hits<T> hits;
  };

  template <typename RowBody>
  void for_rows(bool runs, const RowBody& body);

  CellList<T> cells_;
  PairQuestion question_{};
  std::vector<std::unique_ptr<Workspace>> workspaces_;  // one per thread
  Buffer<int32_t> counts_;   // by atom
  Buffer<int64_t> offsets_;  // (atoms + 1,) first pair of each atom
};

// This thread's finder, whose memory serves again in the next call.
template <typename T>
PairFinder<T>& pair_finder();

}  // namespace openmm_gnn
