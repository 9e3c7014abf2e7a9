// Brute force for small systems: every atom against every other, in tiles through shared memory.
//
// One thread = one strand: one row (atom i) against every strands-th atom of each tile. Up to 2048 atoms a thread per
// row would leave a large GPU idle, so up to 32 threads share a row; the scan over (row, strand) puts their pairs in
// order. Cost: N^2 candidates, each 6 additions and 6 roundings in fractional coordinates before most of them are
// dropped; shared memory 256 * (4 or 8) * 7 bytes. A candidate is tested in all images that the cutoff can reach along
// each lattice vector: at most one where the cutoff is below half the height, several in a small box. The images: along
// lattice vector k two points differ by at least |fractional difference| * height_k, for any cell.
#pragma once

#include "neighbors/cuda/pair_actions.h"

namespace openmm_gnn::cuda {

constexpr int kTileAtoms = 128;

template <typename T>
struct TileShared {
  SearchAtom<T> atom[kTileAtoms];
  T fractional[3][kTileAtoms];
};

// Whole numbers n with |difference + n| <= reach: first and last, first > last if none.
struct ImageRange {
  int32_t first, last;
};

template <typename T>
OPENMM_GNN_HOST_DEVICE ImageRange images_within(T difference, T reach) {
  return {static_cast<int32_t>(ceil(-reach - difference)), static_cast<int32_t>(floor(reach - difference))};
}

template <typename T, class Action>
struct SearchTiles {
  static constexpr int kThreads = kTileAtoms;
  using Shared = TileShared<T>;
  Workspace<T> work;
  int64_t num_atoms;
  T cutoff;
  bool full;
  Action action;

  struct Row {
    SearchAtom<T> atom;
    T fractional[3];
    typename Action::Thread state;
  };

  // All images of one candidate.
  OPENMM_GNN_HOST_DEVICE void test(Row& row, const Shared& tile, int candidate, const Plan<T>& plan,
                                   const T (&reach)[3]) const {
    ImageRange range[3];
    for (int k = 2; k >= 0; --k) {
      range[k] = images_within(tile.fractional[k][candidate] - row.fractional[k], reach[k]);
      if (range[k].first > range[k].last) return;
    }
    FoundPair<T> pair;
    for (pair.image[2] = range[2].first; pair.image[2] <= range[2].last; ++pair.image[2]) {
      for (pair.image[1] = range[1].first; pair.image[1] <= range[1].last; ++pair.image[1]) {
        for (pair.image[0] = range[0].first; pair.image[0] <= range[0].last; ++pair.image[0]) {
          T offset[3];
          for (int d = 0; d < 3; ++d) offset[d] = lattice_offset<T>(plan.lattice, pair.image, d);
          if (is_pair(row.atom, tile.atom[candidate], offset, cutoff, full, pair)) action.pair(row.state, pair);
        }
      }
    }
  }

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& tile) const {
    const Plan<T>& plan = *work.plan;
    if (!action.wanted(plan)) return;
    const int64_t first = block.index() * kThreads;
    T reach[3];
    for (int k = 0; k < 3; ++k) reach[k] = plan.reach[k];
    const bool periodic = plan.grid.periodic;
    typename Block::template PerThread<Row> threads(block);
    block.each_thread([&](int thread) {
      const int64_t strand = first + thread;
      if (strand >= work.num_strands) return;
      const int64_t atom = strand / work.strands;
      Row& row = threads[thread];
      row.atom = work.wrapped[atom];
      for (int k = 0; k < 3; ++k) row.fractional[k] = work.fractional[3 * atom + k];
      action.begin(row.state, strand);
    });
    for (int64_t tile_first = 0; tile_first < num_atoms; tile_first += kTileAtoms) {
      const int64_t left = num_atoms - tile_first;
      const int tile_size = left < kTileAtoms ? static_cast<int>(left) : kTileAtoms;
      block.phase([&](int thread) {
        if (thread >= tile_size) return;
        tile.atom[thread] = work.wrapped[tile_first + thread];
        for (int k = 0; k < 3; ++k) tile.fractional[k][thread] = work.fractional[3 * (tile_first + thread) + k];
      });
      block.phase([&](int thread) {
        if (first + thread >= work.num_strands) return;
        Row& row = threads[thread];
        const T nowhere[3] = {0, 0, 0};
        for (int candidate = (first + thread) % work.strands; candidate < tile_size; candidate += work.strands) {
          if (periodic) {
            test(row, tile, candidate, plan, reach);
          } else {
            FoundPair<T> pair;
            for (int k = 0; k < 3; ++k) pair.image[k] = 0;
            if (is_pair(row.atom, tile.atom[candidate], nowhere, cutoff, full, pair)) action.pair(row.state, pair);
          }
        }
      });
    }
    block.each_thread([&](int thread) {
      if (first + thread < work.num_strands) action.end(threads[thread].state, first + thread);
    });
  }
};

}  // namespace openmm_gnn::cuda
