// The loops over edges of encoders, models/{torchmd_et,visnet,tensornet}.py; formulas are there.
//
// A filter is a function of the distance alone: it is read from a table by cubic Hermite interpolation, so that the
// radial basis and its linear maps cost nothing here. One edge is done at a time (for ViSNet, whose edges have features
// that go through matrices, a block of them), its features stay in registers or the nearest cache, and the sums go
// straight to the receiver: edges ordered by receiver find its row in the nearest cache too. Cost per edge and 16
// channels: 60 to 100 instructions; for ViSNet it is the matrix products, 5 width^2 multiplications per edge.
#pragma once

#include <cstdint>

namespace openmm_gnn {

constexpr int64_t kMostEncoderGroups = 64;  // of 16 channels

// E edges; what a sender has goes to the receiver.
struct EncoderEdges {
  int64_t count;
  const int64_t *receivers, *senders;
  const float* directions;  // (E, 3) unit vectors, zero on an atom's own edge
  const float* envelope;    // (E,)
  const double* places;     // (E,) in a filter table, in knots
};

// Values, and slopes per knot, (knots, 2, channels).
struct FilterTable {
  const float* values;
  int64_t knots, channels;
};

struct AttentionInputs {
  int64_t width, head_width;
  const float* node;     // (N, 5 width): query, key, three values
  const float* vectors;  // (N, 3, width)
  FilterTable filters;   // 4 width channels: of the key and the values
};

struct EdgeLayerInputs {
  int64_t width, head_width;
  int64_t filter_width;        // 3 width: of key, value and the edge's own change; 2 width: edges do not change
  const float* node;           // (N, 3 width): query, key, value
  const float* vectors;        // (N, 3, width)
  const float* mixed;          // (N, 3, 5 width), the target's and the source's parts of the change last; or null
  const float* edges;          // (E, width)
  const float* filter_weight;  // (width, filter_width)
  const float* filter_bias;
  const float* spread_weight;  // (width, 2 width): scales of the sender's vectors and of the direction
  const float* spread_bias;
};

// Edges that are done together, for the sake of the matrix products, and what one thread needs for them.
constexpr int64_t kEdgesPerBlock = 24;
inline int64_t edge_layer_scratch(const EdgeLayerInputs& in) {
  return kEdgesPerBlock * (in.filter_width + 3 * in.width);
}

struct TensorInputs {
  int64_t width;
  const float* parts;             // (N, 9, width)
  const float *receiver, *sender;  // (N, width), instead of parts: the first tensors are made of directions
  FilterTable filters;            // 3 width channels: of the parts
};

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
