// The neighbour list of update_neighbor_list, for operators that use its pairs at once.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "neighbors/cpu/list_filter.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn {

// A list whose stored pairs are right for the positions of a call, and locked as long as this lives.
template <typename T>
struct CurrentList {
  std::unique_lock<std::mutex> guard;
  ListState<T> state;
  int num_threads;  // that are worth using for a search
};

// Follows the atoms, and finds the stored pairs anew where that is due. `tracked` is this call's; positions and box have
// passed `check_system`.
template <typename T>
CurrentList<T> current_list(const ListArguments& in, Tracked<T>& tracked);

template <typename T>
StoredPairs<T> stored_pairs(const ListState<T>& state, int64_t num_atoms, const Tracked<T>& tracked, double cutoff) {
  const T limit = static_cast<T>(cutoff);
  return {state.stored_i(), state.stored_j(), state.stored_shifts, state.status[kStatusStored],
          num_atoms,        &tracked,         state.reference_box, limit * limit};
}

// The stored pairs that are within the cutoff. Each thread looks through a contiguous part, so the parts one behind the
// other are in the stored order, for any number of threads.
template <typename T>
struct CloseList {
  std::vector<std::unique_ptr<ClosePairs<T>>> parts;
  std::vector<int64_t> starts;  // of each part among all; then their number

  void find(const StoredPairs<T>& stored, int num_threads);
};

}  // namespace openmm_gnn
