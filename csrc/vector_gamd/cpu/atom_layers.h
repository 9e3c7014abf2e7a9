// What atoms do between the loops over pairs of a network with vector features, networks/vector_gamd.py, forth and back,
// for weights that are not trained; and its first round of messages, whose senders are species.
//
// All of it runs without PyTorch: for 22 atoms, the operations that autograd would run take longer than their work.
#pragma once

#include <cstdint>

#include "vector_gamd/cpu/prepared_edges.h"
#include "vector_gamd/network_weights.h"
#include "vector_gamd/pair_rows.h"

namespace openmm_gnn {

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
