// Sorts the atoms by cell, and within a cell by atom, so that the atomics of wrap_atoms.h leave no trace in the result.
//
// GatherMembers: one thread = one atom, which writes itself into its cell's part of the list in order of arrival, an
// order that changes from run to run. RankMembers: one thread = one atom, which counts the smaller atoms of its cell;
// that is its place. Cost: 12 bytes per atom and twice 4 per member of its cell, read through the cache; 32 written.
// Counting needs no sort, works for any number of atoms in a cell, and costs as much as the search only when all are in
// one.
#pragma once

#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

template <typename T>
struct GatherMembers {
  Workspace<T> work;

  OPENMM_GNN_HOST_DEVICE void at(int64_t atom) const {
    if (!work.plan->active()) return;
    work.members[work.cell_scan.start(work.cell[atom]) + work.slot[atom]] = static_cast<int32_t>(atom);
  }
};

template <typename T>
struct RankMembers {
  Workspace<T> work;

  // By place in the list, not by atom: neighbouring threads then read the same members.
  OPENMM_GNN_HOST_DEVICE void at(int64_t place) const {
    if (!work.plan->active()) return;
    const int64_t atom = work.members[place];
    const int32_t cell = work.cell[atom];
    const int64_t begin = work.cell_scan.start(cell);
    const int64_t end = work.cell_scan.start(static_cast<int64_t>(cell) + 1);
    int64_t rank = 0;
    for (int64_t member = begin; member < end; ++member) rank += work.members[member] < atom ? 1 : 0;
    work.sorted[begin + rank] = work.wrapped[atom];
  }
};

}  // namespace openmm_gnn::cuda
