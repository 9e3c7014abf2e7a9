// A whole TorchMD-ET, networks/encoders/torchmd_et.py, whose weights are fixed, and its gradient by the edges.
//
// For the forces of few atoms: between the loops over edges a layer is 80 operations of PyTorch, forth and back, that
// take 5 microseconds each however little there is to do.
#pragma once

#include <cstdint>

namespace openmm_gnn {

// Of one layer, one behind the other; matrices as (inputs, outputs), then again as (outputs, inputs) for the way back,
// each as panels of 16 columns.
struct AttentionWeights {
  int64_t width;
  const float* begin;

  const float* norm() const { return begin; }  // gain and bias
  const float* node() const { return begin + 2 * width; }
  const float* node_bias() const { return node() + 5 * width * width; }
  const float* mixing() const { return node_bias() + 5 * width; }
  const float* out() const { return mixing() + 3 * width * width; }
  const float* out_bias() const { return out() + 3 * width * width; }
  const float* node_back() const { return out_bias() + 3 * width; }
  const float* mixing_back() const { return node_back() + 5 * width * width; }
  const float* out_back() const { return mixing_back() + 3 * width * width; }
  static int64_t count(int64_t width) { return 22 * width * width + 10 * width; }
};

// What a layer computes for its atoms, each array for all of them; kept for the way back.
struct AttentionState {
  int64_t atoms, width;
  float* begin;

  float* scalars() const { return begin; }                       // that come in
  float* vectors() const { return begin + atoms * width; }       // (N, 3, width), that come in
  float* node() const { return begin + 4 * atoms * width; }      // (N, 5 width)
  float* mixed() const { return begin + 9 * atoms * width; }     // (N, 3, 3 width)
  float* gates() const { return begin + 18 * atoms * width; }    // (N, 3 width): gate, scale, shift
  static int64_t count(int64_t atoms, int64_t width) { return 21 * atoms * width; }
};

// Atoms [begin, end) of one layer, or rows [begin, end) of a matrix.
struct AttentionNetworkKernels {
  // gain (x - mean) / sqrt(variance + 1e-5) + bias, of rows.
  void (*normalize)(const float* rows, int64_t begin, int64_t end, int64_t width, const float* norm, float* to);
  // Adds the gradient by the rows.
  void (*normalize_back)(const float* rows, int64_t begin, int64_t end, int64_t width, const float* norm,
                         const float* gradient, float* to);
  // rows weight + bias, the weight as panels of 16 columns; a null bias is zero.
  void (*multiply)(const float* rows, int64_t begin, int64_t end, int64_t depth, const float* weight, const float* bias,
                   int64_t columns, float* to);
  // The scalars and vectors that the layer hands on; vectors come as the sums of messages.
  void (*update)(const AttentionState&, int64_t begin, int64_t end, float* scalars, float* vectors);
  // Gradients of mixed and gates, from those of the scalars and vectors.
  void (*update_back)(const AttentionState&, int64_t begin, int64_t end, const float* scalars, const float* vectors,
                      float* mixed, float* gates);
};

const AttentionNetworkKernels& attention_network_kernels();

}  // namespace openmm_gnn
