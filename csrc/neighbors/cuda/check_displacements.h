// Has an atom moved so far that the stored list may miss a pair? Two atoms that approach by skin / 2 each are still
// listed; beyond that the list is found anew (Verlet, Phys. Rev. 159, 98 (1967), doi:10.1103/PhysRev.159.98, with the
// test per atom instead of a fixed number of steps).
//
// One thread = one atom. Cost: reads 2 and writes 1 position and 3 integers per atom (48 bytes at float32), some 60
// double-precision operations. OpenMM moves whole molecules by lattice vectors between steps: such jumps are counted,
// stored, and do not count as motion.
#pragma once

#include "neighbors/cuda/plan_search.h"

namespace openmm_gnn::cuda {

template <typename T>
struct CheckDisplacements {
  static constexpr int kThreads = 256;
  using Shared = NoShared;
  System<T> system;
  SkinState<T> state;
  Workspace<T> work;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t atom = first + thread;
      // Once a rebuild is certain (also by another thread of this kernel) wrap_atoms.h fills in what is skipped here.
      if (atom >= system.num_atoms || work.plan->rebuild != 0) return;
      T raw[3];
      for (int d = 0; d < 3; ++d) raw[d] = system.positions[atom * system.row_stride + d * system.column_stride];
      const Displacement<T> moved =
          displacement_since(work.plan->lattice, raw, state.reference_positions + 3 * atom);
      if (has_moved(moved.squared, static_cast<T>(state.skin))) {
        raise_flag(&work.plan->rebuild);
        return;
      }
      for (int d = 0; d < 3; ++d) {
        work.unwrapped[3 * atom + d] = moved.unwrapped[d];
        work.jumps[3 * atom + d] = moved.jump[d];
      }
    });
  }
};

}  // namespace openmm_gnn::cuda
