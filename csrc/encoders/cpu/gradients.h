// Gradients of the loops of messages.h: what comes in belongs to the sums, what goes out to all inputs.
//
// Nothing is kept from the forward pass: an edge's filters and attention are computed again from the table, in less time
// than their 10 width numbers would take from memory. The gradient of a filter goes to the four rows of the table
// that it was made of, with the same weights: the linear map to a table of few hundred rows then stands in for one over all
// edges. Cost per edge and 16 channels: about 200 instructions, and 100 more for the table's gradient.
#pragma once

#include "encoders/cpu/messages.h"

namespace openmm_gnn {

struct TensorGradients {
  const float* sums;        // come in: (N, 9, width)
  float *sender, *receiver;  // (N, 9, width) and null, or (N, width) both for the first tensors
  float *table, *places;     // as above, or null
  float* directions;         // (E, 3), or null; of the first tensors
};

// Rows of a table while its weights are trained, each 2 channels long: a function z and its slope s become
// a = SiLU(z + bias) and its slope SiLU'(z + bias) s.
struct ActivatedRows {
  int64_t channels;
  const float *rows, *bias;
  const float* gradient;  // of a and its slope, for the way back
};

// Edges [begin, end); sums over edges are added to what the outputs hold, what belongs to one edge is written.
struct EncoderGradientKernels {
  void (*attention)(const EncoderEdges&, int64_t begin, int64_t end, const AttentionInputs&, const AttentionGradients&);
  void (*tensors)(const EncoderEdges&, int64_t begin, int64_t end, const TensorInputs&, const TensorGradients&);
  // Rows [begin, end) of a table.
  void (*activate)(const ActivatedRows&, int64_t begin, int64_t end, float* table);
  void (*activate_back)(const ActivatedRows&, int64_t begin, int64_t end, float* rows, float* bias);
};

const EncoderGradientKernels& encoder_gradient_kernels();

}  // namespace openmm_gnn
