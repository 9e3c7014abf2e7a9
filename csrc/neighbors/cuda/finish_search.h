// What happens once the number of pairs is known: called by the first thread of ScanTotals (prefix_sum.h).
#pragma once

#include "neighbors/cuda/plan_search.h"

namespace openmm_gnn::cuda {

template <typename T>
OPENMM_GNN_HOST_DEVICE int64_t search_errors(const Plan<T>& plan) {
  return plan.errors | (plan.bad_positions != 0 ? int64_t(kErrorPositions) : 0);
}

// neighbor_pairs: the three numbers that the host reads.
template <typename T>
struct FinishReport {
  Workspace<T> work;
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t found) const {
    work.plan->found = found;
    *work.report = {found, search_errors(*work.plan), work.plan->bad_atom};
  }
};

// update_neighbor_list: the status, which the host may read whenever it likes. A list that did not fit is not stored in
// part: nothing is stored, and the next call searches again, as after any other error.
template <typename T>
struct FinishState {
  System<T> system;
  SkinState<T> state;
  Workspace<T> work;
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t found) const {
    Plan<T>& plan = *work.plan;
    if (plan.rebuild == 0) return;
    plan.found = found;
    const bool fits = found <= state.capacity;
    const int64_t errors = search_errors(plan) | (fits ? 0 : int64_t(kErrorOverflow));
    *work.report = {found, errors, plan.bad_atom};
    state.status[kStatusStored] = fits ? found : 0;
    state.status[kStatusRequired] = found;
    state.status[kStatusRebuilds] += 1;
    state.status[kStatusErrors] |= errors;
    state.status[kStatusValid] = errors == 0 ? 1 : 0;
    if (plan.bad_positions != 0) state.status[kStatusBadAtom] = plan.bad_atom;
    for (int k = 0; k < 3; ++k) {
      for (int d = 0; d < 3; ++d) state.reference_box[3 * k + d] = box_element(system, k, d);
    }
  }
};

}  // namespace openmm_gnn::cuda
