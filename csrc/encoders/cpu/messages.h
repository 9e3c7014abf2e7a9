// The loops of ../messages.h for the CPU. One edge is done at a time (for ViSNet, whose edges have features that go
// through matrices, a block of them), its features stay in registers or the nearest cache, and the sums go straight to
// the receiver: edges ordered by receiver find its row in the nearest cache too. Cost per edge and 16 channels: 60 to 100
// instructions; for ViSNet it is the matrix products, 5 width^2 multiplications per edge.
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

// Edges or atoms [begin, end); sums over edges are added to what the outputs hold.
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
};

const EncoderKernels& encoder_kernels();

}  // namespace openmm_gnn
