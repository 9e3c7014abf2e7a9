// The functions of attention_network and its gradient, csrc/encoders/messages.h, for other operators.
#pragma once

#include <tuple>
#include <vector>

#include "base/arguments.h"
#include "base/boxed.h"

namespace openmm_gnn {

struct NetworkArguments {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, int64_t, int64_t>;
  Tensor index, vectors, distances, embedded, weights, tables, norm;
  double cutoff;
  int64_t head_width, num_threads;
};

std::tuple<Tensor, Tensor, Tensor> attention_network_cpu(const NetworkArguments&);

// Gradients by vectors and distances of edges, for each of some directions. These are gradients by scalars and by vectors
// of atoms, (directions, N, width) and (directions, N, 3, width). No direction changes the digits of another one.
std::vector<std::tuple<Tensor, Tensor>> attention_network_directions(const NetworkArguments&, const Tensor& kept,
                                                                     int64_t directions, const float* from_scalars,
                                                                     const float* from_vectors);

std::tuple<Tensor, Tensor> attention_network_backward_cpu(const NetworkArguments&, const Tensor& kept,
                                                          const Tensor& scalar_gradient, const Tensor& vector_gradient);

}  // namespace openmm_gnn
