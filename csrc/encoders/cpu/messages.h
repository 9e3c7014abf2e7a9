// The loops of ../messages.h for the CPU, and of their gradients: what comes in belongs to the sums, what goes out to all
// inputs. One edge is done at a time (for ViSNet, whose edges have features that go through matrices, a block of them), its
// features stay in registers or the nearest cache, and the sums go straight to the receiver: edges ordered by receiver find
// its row in the nearest cache too. Cost per edge and 16 channels: 60 to 100 instructions; for ViSNet it is the matrix
// products, 5 width^2 multiplications per edge.
//
// Nothing is kept for the gradients: an edge's filters and attention are computed again from the table, in less time
// than their 10 width numbers would take from memory. The gradient of a filter goes to the four rows of the table
// that it was made of, with the same weights: the linear map to a table of few hundred rows then stands in for one over
// all edges. Cost per edge and 16 channels: about 200 instructions, and 100 more for the table's gradient.
#pragma once

#include "encoders/messages.h"

namespace openmm_gnn {

// Edges that are done together, for the sake of the matrix products, and what one thread needs for them.
constexpr int64_t kEdgesPerBlock = 24;
inline int64_t edge_layer_scratch(const EdgeLayerInputs& in) {
  return kEdgesPerBlock * (in.filter_width + 3 * in.width);
}

// Tensors of atoms by channel, (N, 9, width); each loop has its formula.
struct TensorAtoms {
  int64_t width;
  const float *first, *second;
};

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

// Edges, atoms or rows of a table [begin, end); sums over edges are added to what the outputs hold, what belongs to one
// edge is written.
struct EncoderKernels {
  void (*attention)(const EncoderEdges&, int64_t begin, int64_t end, const AttentionInputs&, float* scalars,
                    float* vectors);
  void (*edge_layer)(const EncoderEdges&, int64_t begin, int64_t end, const EdgeLayerInputs&, float* scratch,
                     float* scalars, float* vectors, float* edges);
  void (*tensors)(const EncoderEdges&, int64_t begin, int64_t end, const TensorInputs&, float* parts);
  // first / (|first|^2 + 1)
  void (*scaled_tensors)(const TensorAtoms&, int64_t begin, int64_t end, float* parts);
  // P / (|P|^2 + 1) with the matrix products P = first second + second first
  void (*tensor_products)(const TensorAtoms&, int64_t begin, int64_t end, float* parts);
  // first + second + second second, matrix products
  void (*tensor_squares)(const TensorAtoms&, int64_t begin, int64_t end, float* parts);
  void (*filters)(const double* places, int64_t begin, int64_t end, const FilterTable&, float* values);
  void (*attention_gradients)(const EncoderEdges&, int64_t begin, int64_t end, const AttentionInputs&,
                              const AttentionGradients&);
  // Without a table, and along `directions` at once, one behind the other in each array of the gradients.
  void (*attention_directions)(const EncoderEdges&, int64_t begin, int64_t end, const AttentionInputs&, int64_t atoms,
                               int64_t directions, const AttentionGradients&);
  void (*tensor_gradients)(const EncoderEdges&, int64_t begin, int64_t end, const TensorInputs&, const TensorGradients&);
  void (*activate)(const ActivatedRows&, int64_t begin, int64_t end, float* table);
  void (*activate_back)(const ActivatedRows&, int64_t begin, int64_t end, float* rows, float* bias);
};

const EncoderKernels& encoder_kernels();

}  // namespace openmm_gnn
