// Turns the stored list of the skin into the pairs of this step.
//
// EmitPadded: one thread = one slot of the list. Cost: 20 bytes read and 16 to 44 written per slot, whether it holds a
// pair or padding: a capacity of twice the pairs costs twice the time. Shapes never change, so it fits a CUDA graph. The
// state comes from the caller, so no stored number is taken for an atom before it is compared with their number, in
// registers; a slot with another number becomes padding, its error a bit of the status, and the next call searches.
//
// FinishReport and FinishState: what happens once the number of pairs is known; called by the first thread of ScanTotals
// (prefix_sum.h).
#pragma once

#include "neighbors/cuda/pair_actions.h"

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

// The pair (pair.i, pair.j), stored in `slot`, as it is now. r_j - r_i + S @ box is the same for the raw positions and
// for those freed of jumps, with S = stored + jump_i - jump_j for the raw ones.
template <typename T>
OPENMM_GNN_HOST_DEVICE void pair_now(const Workspace<T>& work, const SkinState<T>& state, int64_t slot,
                                     FoundPair<T>& pair, int32_t (&shift)[3]) {
  for (int k = 0; k < 3; ++k) pair.image[k] = state.stored_shifts[3 * slot + k];
  for (int d = 0; d < 3; ++d) {
    pair.d[d] = (work.unwrapped[3 * pair.j + d] - work.unwrapped[3 * pair.i + d]) +
                lattice_offset<T>(work.plan->lattice, pair.image, d);
    shift[d] = raw_shift(pair.image[d], work.jumps[3 * pair.i + d], work.jumps[3 * pair.j + d]);
  }
  pair.squared = squared_length(pair.d[0], pair.d[1], pair.d[2]);
}

template <typename T>
struct EmitPadded {
  SkinState<T> state;
  Workspace<T> work;
  PairTensors<T> output;
  int64_t num_atoms;
  T far;  // the length of a padding vector, beyond every cutoff

  OPENMM_GNN_HOST_DEVICE bool is_atom(int32_t index) const { return index >= 0 && index < num_atoms; }

  OPENMM_GNN_HOST_DEVICE void at(int64_t slot) const {
    FoundPair<T> pair{-1, -1, {0, 0, 0}, {far, 0, 0}, far * far};
    int32_t shift[3] = {0, 0, 0};
    const int64_t stored = state.status[kStatusStored];
    bool ours = stored >= 0 && stored <= state.capacity;
    if (ours && slot < stored) {
      const int32_t i = state.stored_pairs[slot], j = state.stored_pairs[state.capacity + slot];
      ours = is_atom(i) && is_atom(j);
      if (ours) {
        pair.i = i;
        pair.j = j;
        pair_now(work, state, slot, pair, shift);
      }
    }
    if (!ours) {  // the same values from every thread that comes here
      state.status[kStatusErrors] |= kErrorStored;
      state.status[kStatusValid] = 0;
    }
    output.write(slot, pair, shift);
  }
};

}  // namespace openmm_gnn::cuda
