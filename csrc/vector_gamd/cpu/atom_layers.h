// What atoms do between the loops over pairs of a network with vector features, networks/vector_gamd.py, forth and back,
// for weights that are not trained; and its first round of messages, whose senders are species.
//
// All of it runs without PyTorch: for 22 atoms, the operations that autograd would run take longer than their work.
#pragma once

#include <cstdint>
#include <vector>

#include "vector_gamd/cpu/prepared_edges.h"
#include "vector_gamd/pair_rows.h"

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

struct FirstMessages {
  int64_t width, species;
  const int64_t* of_atoms;  // species
  const float* constants;   // (species, species, 3 width) by receiver and sender: target + source
  const float* value;       // (species, width)
  SplineTable table;
};

// Pairs [begin, end), or atoms [begin, end). Loops over pairs add to what the outputs hold.
struct ForceKernels {
  void (*first_messages)(const PreparedEdges&, int64_t begin, int64_t end, const FirstMessages&, float* scalars,
                         float* vectors);
  void (*first_gradients)(const PreparedEdges&, int64_t begin, int64_t end, const FirstMessages&, const float* scalars,
                          const float* vectors, float* pair_vectors);
  void (*messages)(const PreparedEdges&, int64_t begin, int64_t end, const RowMessages&, float* scalars, float* vectors);
  void (*message_gradients)(const PreparedEdges&, int64_t begin, int64_t end, const RowMessages&,
                            const RowMessageGradients&);
  void (*strengths)(const PreparedEdges&, int64_t begin, int64_t end, const RowStrengths&, float* strengths);
  // Returns the energy, whose gradients by the strengths come in.
  double (*energy)(const PreparedEdges&, int64_t begin, int64_t end, const RowStrengths&, const RowStrengthGradients&);
  // Features of atoms that their messages are made of; `update` gets what the layer's sums are added to.
  void (*prepare)(const LayerWeights&, const LayerState&, int64_t begin, int64_t end);
  // From sums of messages to the scalars and vectors that the layer hands on.
  void (*update)(const LayerWeights&, const LayerState&, int64_t begin, int64_t end, float* scalars, float* vectors);
  void (*update_back)(const LayerWeights&, const LayerState&, int64_t begin, int64_t end, const LayerGradients&);
  void (*prepare_back)(const LayerWeights&, const LayerState&, int64_t begin, int64_t end, const LayerGradients&);
  void (*decode)(const DecoderWeights&, const DecoderState&, int64_t begin, int64_t end);
  // Of total, left and probe, which lie in source, target and probe.
  void (*decode_back)(const DecoderWeights&, const DecoderState&, int64_t begin, int64_t end, const LayerGradients&);
};

const ForceKernels& force_kernels();

}  // namespace openmm_gnn
