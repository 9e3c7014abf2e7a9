// The operators of neighbor_pairs.h on the CPU.
#pragma once

#include "neighbors/neighbor_pairs.h"
#include "base/tensor_access.h"

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

// What the operators of vector_network.h have in common.
struct PairInputs {
  Tensor pairs, types, vectors, distances;
  double start, cutoff;  // of the radial table
  int64_t num_threads;
};

struct MessageInputs {
  Tensor source, target, value, probe, carried, table, mixing;
};

struct StrengthInputs {
  Tensor total, left, probe, table, mixing, readout;
};

std::vector<Tensor> vector_messages_cpu(const PairInputs& pairs, const MessageInputs& in);

// Gradients of the inputs in their order, then of the pairs' vectors. Without `geometry` the latter are empty, without
// `weights` those of table, mixing and readout.
std::vector<Tensor> vector_messages_backward_cpu(const PairInputs& pairs, const MessageInputs& in,
                                                 const Tensor& scalars, const Tensor& vectors, bool geometry, bool weights);

Tensor pair_strengths_cpu(const PairInputs& pairs, const StrengthInputs& in);

std::vector<Tensor> pair_strengths_backward_cpu(const PairInputs& pairs, const StrengthInputs& in,
                                                const Tensor& strengths, bool geometry, bool weights);

// (P,) the kind of each pair, as networks/vector_gamd.py `pair_types` counts them; 0 for padding.
Tensor pair_types_cpu(const Tensor& pairs, const Tensor& species, const Tensor& partners, int64_t num_species);

// Forces (N, 3) and energy (1,) of splines of the distance, (types, knots).
std::vector<Tensor> radial_pair_forces_cpu(const PairInputs& pairs, const Tensor& table, int64_t num_atoms);

// The operators of particle_mesh.cpp. Grid (K1, K2, K3) of the charges; its transform, real and imaginary parts, times
// the influence function in place; forces (N, 3) and energy (1,) from the potential on the grid.
Tensor mesh_charges_cpu(const Tensor& positions, const Tensor& charges, const Tensor& box, int64_t size_a,
                        int64_t size_b, int64_t size_c, int64_t order, int64_t num_threads);

void mesh_influence_cpu(const Tensor& transform, const Tensor& box, double width, int64_t size_c, int64_t order,
                        int64_t num_threads);

std::vector<Tensor> mesh_forces_cpu(const Tensor& positions, const Tensor& charges, const Tensor& box,
                                    const Tensor& potential, int64_t order, int64_t num_threads);

}  // namespace openmm_gnn
