// The operators of neighbor_pairs.h on the CPU.
#pragma once

#include "base/tensor_access.h"

namespace openmm_gnn {

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

}  // namespace openmm_gnn
