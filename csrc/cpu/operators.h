// The operators of neighbor_pairs.h on the CPU.
#pragma once

#include "../neighbor_pairs.h"
#include "../tensor_access.h"

namespace openmm_gnn {

struct PairTensors {
  Tensor pairs, shifts, vectors, distances;
};

PairTensors neighbor_pairs_cpu(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full,
                               bool geometry, int64_t num_threads);

// The state that update_neighbor_list changes.
struct ListState {
  Tensor reference_positions, reference_box, stored_pairs, stored_shifts, status;
};

PairTensors update_neighbor_list_cpu(const Tensor& positions, const Tensor& box_vectors, double cutoff, double skin,
                                     bool full, bool geometry, bool trim, int64_t num_threads, const ListState& state);

}  // namespace openmm_gnn
