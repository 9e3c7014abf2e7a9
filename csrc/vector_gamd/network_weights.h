// Weights of a network with vector features as operators of whole networks take them, and the arrays of a pass forth and
// back; on the CPU and the GPU alike. networks/vector_gamd.py has the network.
#pragma once

#include <cstdint>
#include <vector>

#include "encoders/radial_edge.h"

namespace openmm_gnn {

// A linear map: its matrix (inputs, outputs), the bias, and the matrix (outputs, inputs) for the way back. Each matrix
// stands as panels of 16 columns.
struct LinearWeights {
  const float *forth, *bias, *back;
};

// Sums of messages come without the factor of networks/vector_gamd.py: the maps that take them have it.
struct LayerWeights {
  const float* norm;  // gain and bias
  LinearWeights source, target, value, self, probe, carried, length, out, sum, reach, change;
  SplineTable table;
  const float* mixing;
};

struct DecoderWeights {
  const float* norm;
  LinearWeights total, left, probe;
  SplineTable table;
  const float *mixing, *readout;
};

struct NetworkSizes {
  int64_t species, kinds, width, layers, knots;
};

// The weights of `VectorGAMD.packed_weights`, one behind the other.
struct ForceNetworkWeights {
  const float* embedding;  // (species, width)
  std::vector<LayerWeights> layers;
  DecoderWeights decoder;
  int64_t count;  // of all numbers

  ForceNetworkWeights(const float* begin, const NetworkSizes& sizes, float start, float cutoff);
};

// Arrays of all atoms that a layer computes, and that its way back reads: (N, width) and (N, 3, width).
struct LayerState {
  int64_t width;
  float *scalars, *vectors;                       // that come in; no vectors in the first layer
  float *source, *target, *value;                 // (N, 3 width) twice, and (N, width)
  float *probe, *carried;                         // vectors
  float *sums, *vector_sums;                      // of messages
  float *lengths, *outs;                          // maps of the vector sums
  float *length;
  float *update;                                  // the argument of SiLU
  float *change;                                  // (N, 2 width)
};

struct DecoderState {
  int64_t width;
  float *scalars, *vectors, *hidden, *total, *left, *probe;
};

// Gradients; the same arrays serve every layer. The last five are only written and read on one part of the atoms.
struct LayerGradients {
  float *scalars, *vectors;  // of what a layer hands on; then of what came in
  float *sums, *vector_sums, *source, *target, *value, *update, *probe, *carried;
  float *change, *length, *lengths, *outs, *hidden;
};

// Reads weights one behind the other.
struct WeightReader {
  const float* at;
  int64_t width;

  const float* take(int64_t count) {
    const float* begin = at;
    at += count;
    return begin;
  }
  LinearWeights map(int64_t outputs) {
    const float* forth = take(width * outputs);
    const float* bias = take(outputs);
    return {forth, bias, take(outputs * width)};
  }
};

inline ForceNetworkWeights::ForceNetworkWeights(const float* begin, const NetworkSizes& sizes, float start, float cutoff) {
  const int64_t width = sizes.width;
  WeightReader read{begin, width};
  const auto table = [&](int64_t channels) {
    return SplineTable{read.take(sizes.kinds * sizes.knots * channels), sizes.knots, channels, start, cutoff};
  };
  embedding = read.take(sizes.species * width);
  for (int64_t l = 0; l < sizes.layers; ++l) {
    LayerWeights layer{};
    layer.norm = read.take(2 * width);
    layer.source = read.map(3 * width);
    layer.target = read.map(3 * width);
    layer.value = read.map(width);
    layer.self = read.map(width);
    if (l > 0) {
      layer.probe = read.map(width);
      layer.carried = read.map(width);
    }
    layer.length = read.map(width);
    layer.out = read.map(width);
    layer.sum = read.map(width);
    layer.reach = read.map(width);
    layer.change = read.map(2 * width);
    layer.table = table(3 * width);
    layer.mixing = read.take(9 * width);
    layers.push_back(layer);
  }
  decoder.norm = read.take(2 * width);
  decoder.total = read.map(width);
  decoder.left = read.map(width);
  decoder.probe = read.map(width);
  decoder.table = table(width);
  decoder.mixing = read.take(3 * width);
  decoder.readout = read.take(width);
  count = read.at - begin;
}

}  // namespace openmm_gnn
