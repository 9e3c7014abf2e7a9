// First kernel of every search: reads the box and decides how to search, and for the skin list whether to search at
// all.
//
// One thread, one block: about 300 double-precision operations, so its cost is the latency of a launch and of those. It
// runs on the device because the box is there: with a barostat the host does not know it, and asking would cost a
// synchronisation. The skin list keeps its plan, which then is 40 numbers to copy as long as the box stays.
#pragma once

#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

// The state of update_neighbor_list, as in ../neighbor_pairs.h.
template <typename T>
struct SkinState {
  T* reference_positions;  // (N, 3)
  T* reference_box;        // (3, 3), zeros: open
  int32_t* stored_pairs;   // (2, capacity)
  int32_t* stored_shifts;  // (capacity, 3)
  int64_t* status;         // (kStatusSlots,)
  int64_t capacity;
  double skin;
};

// An element of the box; zero for an open boundary.
template <typename T>
OPENMM_GNN_HOST_DEVICE T box_element(const System<T>& system, int k, int d) {
  return system.box == nullptr ? T(0) : system.box[k * system.box_row_stride + d * system.box_column_stride];
}

// Cells of an open boundary lie on a ring. A cube of A^3 cells, rows joined end to end, needs A >= 3 so that the 27
// cells around one are different; with A^3 + 1 cells every straight line of cells runs through the whole ring before it
// meets itself, so that a long thin molecule spreads as well as a ball. No bounding box is needed, and an atom that has
// flown off to 1e30 nm costs nothing.
template <typename T>
OPENMM_GNN_HOST_DEVICE void plan_ring(Plan<T>& plan, double cutoff, int64_t max_cells) {
  const double edge = cutoff * (1.0 + kCellMargin);
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) {
      plan.lattice.rows[k][d] = 0;
      plan.lattice.inverse[k][d] = k == d ? 1.0 / edge : 0.0;
    }
    plan.lattice.heights[k] = edge;
    plan.lattice.origin[k] = 0;
    plan.reach[k] = 0;
    plan.grid.count[k] = 1;
    plan.grid.depth[k] = 0;
  }
  plan.lattice.periodic = false;
  plan.grid.periodic = false;
  int64_t side = 3;
  while ((side + 1) * (side + 1) * (side + 1) < max_cells) ++side;
  plan.ring_stride = side;
  plan.grid.total = side * side * side + 1;
}

template <typename T>
OPENMM_GNN_HOST_DEVICE void plan_periodic(Plan<T>& plan, const System<T>& system, double epsilon, int64_t max_cells) {
  plan.ring_stride = 0;
  if (!periodic_lattice(system.box, system.box_row_stride, system.box_column_stride, plan.lattice)) {
    plan.errors |= kErrorBox;
    return;
  }
  // plan_grid keeps to the limit roughly; the memory for the cells is fixed, so here it is kept exactly.
  for (int64_t limit = max_cells;; limit /= 2) {
    if (!plan_grid(plan.lattice, system.cutoff, epsilon, system.num_atoms, limit, plan.grid)) {
      plan.errors |= kErrorImages;
      return;
    }
    if (plan.grid.total <= max_cells) break;
  }
  for (int k = 0; k < 3; ++k) {
    const double height = plan.lattice.heights[k];
    plan.reach[k] = static_cast<T>(system.cutoff * (1.0 + kCellMargin) / height + kFractionRounding * epsilon);
  }
}

// The plan of a list's last search, and what it was made for beside the reference box.
template <typename T>
struct KeptPlan {
  Plan<T> plan;
  double cutoff;
  int64_t num_atoms;
};
static_assert(sizeof(KeptPlan<double>) <= (kStatusSlots - kStatusPlan) * sizeof(int64_t), "status is too short");

template <typename T>
struct PlanSearch {
  static constexpr int kThreads = 1;
  using Shared = NoShared;
  System<T> system;
  SkinState<T> state;  // status == nullptr: neighbor_pairs, which always searches
  Workspace<T> work;
  double epsilon;      // rounding of T, which device code cannot ask std::numeric_limits for

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    block.each_thread([&](int) {
      Plan<T>& plan = *work.plan;
      if (state.status == nullptr) {
        make(plan);
        return;
      }
      state.status[kStatusCalls] += 1;
      bool same = state.status[kStatusValid] == 1;
      for (int k = 0; k < 3; ++k) {
        // Written so that a box of NaN is never the same.
        for (int d = 0; d < 3; ++d) same &= box_element(system, k, d) == state.reference_box[3 * k + d];
      }
      KeptPlan<T>& kept = *reinterpret_cast<KeptPlan<T>*>(state.status + kStatusPlan);
      if (same && kept.cutoff == system.cutoff && kept.num_atoms == system.num_atoms) {
        plan = kept.plan;
      } else {
        make(plan);
        kept = {plan, system.cutoff, system.num_atoms};
      }
      plan.rebuild = !(same && plan.searchable);
    });
  }

  // A plan of which nothing is searched yet.
  OPENMM_GNN_HOST_DEVICE void make(Plan<T>& plan) const {
    plan.errors = 0;
    plan.bad_positions = 0;
    plan.bad_atom = INT64_MAX;
    plan.found = 0;
    if (system.box == nullptr) {
      plan_ring(plan, system.cutoff, work.max_cells);
    } else {
      plan_periodic(plan, system, epsilon, work.max_cells);
    }
    plan.searchable = plan.errors == 0;
    plan.rebuild = 1;
  }
};

}  // namespace openmm_gnn::cuda
