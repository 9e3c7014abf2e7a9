// Brings every atom into the cell and, for the cell list, counts it into its cell. For the skin list the positions also
// become the new reference.
//
// One thread = one atom. Cost: some 60 double-precision operations, 12 bytes read and 28 written per atom at float32
// (40 and one atomic add with the cell list), 36 more for the skin list.
//
// CheckDisplacements, which comes before: has an atom moved so far that the stored list may miss a pair? Two atoms that
// approach by skin / 2 each are still listed; beyond that the list is found anew (Verlet, Phys. Rev. 159, 98 (1967),
// doi:10.1103/PhysRev.159.98, with the test per atom instead of a fixed number of steps).
//
// One thread = one atom. Cost: reads 2 and writes 1 position and 3 integers per atom (48 bytes at float32), some 60
// double-precision operations. OpenMM moves whole molecules by lattice vectors between steps: such jumps are counted,
// stored, and do not count as motion.
#pragma once

#include "neighbors/cuda/plan_search.h"

namespace openmm_gnn::cuda {

template <typename T>
struct CheckDisplacements {
  System<T> system;
  SkinState<T> state;
  Workspace<T> work;

  OPENMM_GNN_HOST_DEVICE void at(int64_t atom) const {
    // Once a rebuild is certain (also by another thread of this kernel) WrapAtoms fills in what is skipped here.
    if (is_raised(&work.plan->rebuild)) return;
    T raw[3];
    for (int d = 0; d < 3; ++d) raw[d] = system.positions[atom * system.row_stride + d * system.column_stride];
    const Displacement<T> moved = displacement_since(work.plan->lattice, raw, state.reference_positions + 3 * atom);
    if (has_moved(moved.squared, static_cast<T>(state.skin))) {
      raise_flag(&work.plan->rebuild);
      return;
    }
    for (int d = 0; d < 3; ++d) {
      work.unwrapped[3 * atom + d] = moved.unwrapped[d];
      work.jumps[3 * atom + d] = moved.jump[d];
    }
  }
};

// The cell on the ring (plan_search.h) of an atom at open boundaries; `fractional` is its place in units of a cell
// edge.
template <typename T>
OPENMM_GNN_HOST_DEVICE int64_t ring_cell(const Plan<T>& plan, const double* fractional) {
  // Beyond this many cells a place has no digits left below one cell. All that is further out shares the outermost
  // cells: more candidates, no pair missed.
  constexpr double kOutermost = 68719476736.0;  // 2^36
  int64_t cell = 0, stride = 1;
  for (int k = 0; k < 3; ++k) {
    double place = floor(fractional[k]);
    place = place < kOutermost ? place : kOutermost;
    place = place > -kOutermost ? place : -kOutermost;
    const int64_t along = static_cast<int64_t>(place) % plan.grid.total;
    cell += along * stride;
    stride *= plan.ring_stride;
  }
  cell %= plan.grid.total;
  return cell < 0 ? cell + plan.grid.total : cell;
}

template <typename T>
struct WrapAtoms {
  System<T> system;
  SkinState<T> state;  // status == nullptr: no state
  Workspace<T> work;

  OPENMM_GNN_HOST_DEVICE void at(int64_t atom) const {
    Plan<T>& plan = *work.plan;
    if (!plan.active()) return;
    T raw[3];
    for (int d = 0; d < 3; ++d) raw[d] = system.positions[atom * system.row_stride + d * system.column_stride];
    const WrappedAtom<T> wrapped = wrap_atom(plan.lattice, raw[0], raw[1], raw[2]);
    if (!wrapped.valid) {
      raise_flag(&plan.bad_positions);
      atomic_min(&plan.bad_atom, atom);
    }
    const T nowhere = static_cast<T>(NAN);
    SearchAtom<T>& place = work.wrapped[atom];
    place.x = wrapped.valid ? wrapped.position[0] : nowhere;
    place.y = wrapped.valid ? wrapped.position[1] : nowhere;
    place.z = wrapped.valid ? wrapped.position[2] : nowhere;
    place.index = static_cast<typename AtomIndex<T>::Type>(atom);
    for (int k = 0; k < 3; ++k) {
      work.wraps[3 * atom + k] = wrapped.wrap[k];
      if (!system.brute_force) continue;
      work.fractional[3 * atom + k] = wrapped.valid ? static_cast<T>(wrapped.fractional[k]) : T(0);
    }
    if (!system.brute_force) {
      // Bad atoms are dealt out evenly: a simulation that blew up must not put a million atoms into one cell.
      int64_t cell = atom % plan.grid.total;
      if (wrapped.valid) {
        cell = plan.grid.periodic ? cell_of(plan.grid, wrapped.fractional) : ring_cell(plan, wrapped.fractional);
      }
      work.cell[atom] = static_cast<int32_t>(cell);
      work.slot[atom] = atomic_add(&work.cell_count[cell], 1);
    }
    if (state.status == nullptr) return;
    for (int d = 0; d < 3; ++d) {
      state.reference_positions[3 * atom + d] = raw[d];
      work.unwrapped[3 * atom + d] = raw[d];
      work.jumps[3 * atom + d] = 0;
    }
  }
};

}  // namespace openmm_gnn::cuda
