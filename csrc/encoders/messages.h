// The operators of encoders: messages along the edges of a graph, formulas in networks/encoders/{torchmd_et,visnet,
// tensornet}.py. Each has one schema, and a function for the CPU and one for CUDA.
//
// The first five arguments of those over edges are an `EdgePlan` (kernels/encoder_messages.py), made once for a graph:
// edge_index (2, E) int64, row 0 the sources and row 1 the targets; rows (below); directions (E, 3) unit vectors from
// row 1 to row 0, zero on an atom's own edge; envelope (E,) the cosine cutoff; places (E,) float64 in a filter table,
// in knots. Row 1 receives, but in TensorNet row 0. num_threads is for the CPU.
//
// A filter is a function of the distance alone: it is read from a table by cubic Hermite interpolation, so that the
// radial basis and its linear maps cost nothing here.
#pragma once

#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// rows: none on the CPU, where each edge is read once. On CUDA starts (N + 1,) and order (E,), int32, one behind the
// other: order[starts[a]] .. order[starts[a + 1] - 1] are the edges that atom a receives, ascending; no edge with a
// negative atom, or as long as the cutoff. What follows starts[N] is undefined. With `senders` the same comes once more
// for the edges that atom a sends. So a sum over messages is the work of one block: no atomic additions, the same bits at
// every call. Nothing waits for the device and no shape depends on the data.
inline constexpr char kEdgeRows[] =
    "edge_rows(Tensor edge_index, Tensor distances, float cutoff, int receiving, int num_atoms, bool senders) -> Tensor";

// Sums (N, H) and (N, 3, H) of TorchMD-ET's messages; H is the width.
inline constexpr char kAttentionMessages[] =
    "attention_messages(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places, Tensor node,"
    " Tensor vectors, Tensor table, int head_width, int num_threads) -> (Tensor scalars, Tensor vectors)";

// Gradients of what has any, then of the edges; the latter are empty without `geometry`, that of the table without
// `filters`, which CUDA has not. So the other two.
inline constexpr char kAttentionMessagesBackward[] =
    "attention_messages_backward(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places,"
    " Tensor node, Tensor vectors, Tensor table, int head_width, int num_threads, Tensor scalar_gradient,"
    " Tensor vector_gradient, bool geometry, bool filters) -> (Tensor node, Tensor vectors, Tensor table,"
    " Tensor directions, Tensor envelope, Tensor places)";

// Sums (N, H) and (N, 3, H) of ViSNet's messages, and the new (E, H) features of edges. With `smooth`, what is added to
// vectors vanishes at the cutoff too.
inline constexpr char kEdgeLayer[] =
    "edge_layer(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places, Tensor node,"
    " Tensor vectors, Tensor mixed, Tensor edges, Tensor filter_weight, Tensor filter_bias, Tensor spread_weight,"
    " Tensor spread_bias, int head_width, bool smooth, int num_threads)"
    " -> (Tensor scalars, Tensor vectors, Tensor edges)";

// Sums (N, 9, H) of TensorNet's messages, of the senders' tensors or of the directions'.
inline constexpr char kTensorMessages[] =
    "tensor_messages(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places, Tensor parts,"
    " Tensor table, int num_threads) -> Tensor";
inline constexpr char kTensorMessagesBackward[] =
    "tensor_messages_backward(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places,"
    " Tensor parts, Tensor table, int num_threads, Tensor gradient, bool geometry, bool filters)"
    " -> (Tensor parts, Tensor table, Tensor places)";
inline constexpr char kFirstTensors[] =
    "first_tensors(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places, Tensor receiver,"
    " Tensor sender, Tensor table, int num_threads) -> Tensor";
inline constexpr char kFirstTensorsBackward[] =
    "first_tensors_backward(Tensor edge_index, Tensor rows, Tensor directions, Tensor envelope, Tensor places,"
    " Tensor receiver, Tensor sender, Tensor table, int num_threads, Tensor gradient, bool geometry, bool filters)"
    " -> (Tensor receiver, Tensor sender, Tensor table, Tensor directions, Tensor places)";

// Of tensors of atoms (N, 9, H): first / (|first|^2 + 1); the same of P = first second + second first, matrix products;
// first + second + second second.
inline constexpr char kScaledTensors[] = "scaled_tensors(Tensor parts, int num_threads) -> Tensor";
inline constexpr char kTensorProducts[] = "tensor_products(Tensor first, Tensor second, int num_threads) -> Tensor";
inline constexpr char kTensorSquares[] = "tensor_squares(Tensor parts, Tensor change, int num_threads) -> Tensor";

// (E, channels), a table's functions at the places.
inline constexpr char kTabulatedFilters[] = "tabulated_filters(Tensor places, Tensor table, int num_threads) -> Tensor";

// A table (K, 2, C) of SiLU(z + bias), where rows (K, 2, C) is one of z; and its gradients. On the CPU alone, as what
// follows: a whole TorchMD-ET with fixed weights, and its gradients by the edges.
inline constexpr char kActivatedTable[] = "activated_table(Tensor rows, Tensor bias) -> Tensor";
inline constexpr char kActivatedTableBackward[] =
    "activated_table_backward(Tensor rows, Tensor bias, Tensor gradient) -> (Tensor rows, Tensor bias)";
inline constexpr char kAttentionNetwork[] =
    "attention_network(Tensor edge_index, Tensor edge_vectors, Tensor edge_distances, Tensor scalars, Tensor weights,"
    " Tensor tables, Tensor norm, float cutoff, int head_width, int num_threads)"
    " -> (Tensor scalars, Tensor vectors, Tensor kept)";
inline constexpr char kAttentionNetworkBackward[] =
    "attention_network_backward(Tensor edge_index, Tensor edge_vectors, Tensor edge_distances, Tensor scalars,"
    " Tensor weights, Tensor tables, Tensor norm, float cutoff, int head_width, int num_threads, Tensor kept,"
    " Tensor scalar_gradient, Tensor vector_gradient) -> (Tensor edge_vectors, Tensor edge_distances)";

constexpr int64_t kMostEncoderGroups = 64;  // of 16 channels, on the CPU

// E edges; what a sender has goes to the receiver.
struct EncoderEdges {
  int64_t count;
  const int64_t *receivers, *senders;
  const float *directions, *envelope;
  const double* places;
};

// The rows of the receivers; or those of the senders, and then `senders` are the receivers.
struct EdgeRows {
  const int32_t *starts, *order;  // (N + 1,), (E,)
  int64_t num_atoms;
  const int64_t* senders;  // (E,)
};

// Values, and slopes per knot, (knots, 2, channels), of graph/radial_basis.py.
struct FilterTable {
  const float* values;
  int64_t knots, channels;
};

// Where the distance of an edge lies in a table: the first of four rows, and their weights.
struct EdgeFilter {
  int64_t row;  // in floats from the start of the table
  float weight[4];
};

OPENMM_GNN_HOST_DEVICE EdgeFilter edge_filter(const FilterTable& table, double place) {
  const double last = static_cast<double>(table.knots - 1);
  place = place > 0 ? place : 0;  // also NaN
  place = place < last ? place : last;
  int64_t k = static_cast<int64_t>(place);
  k = k < table.knots - 2 ? k : table.knots - 2;
  const float t = static_cast<float>(place - static_cast<double>(k)), s = 1.f - t;
  return {2 * k * table.channels, {(1.f + 2.f * t) * s * s, t * s * s, t * t * (3.f - 2.f * t), -t * t * s}};
}

// The derivatives of the weights by the place. Beyond its ends a table is constant.
OPENMM_GNN_HOST_DEVICE EdgeFilter filter_slopes(const FilterTable& table, double place) {
  const EdgeFilter found = edge_filter(table, place);
  if (!(place > 0 && place < static_cast<double>(table.knots - 1))) return {found.row, {0.f, 0.f, 0.f, 0.f}};
  const float t = static_cast<float>(place - static_cast<double>(static_cast<int64_t>(place)));
  const float first = 6.f * t * (t - 1.f);
  return {found.row, {first, (3.f * t - 1.f) * (t - 1.f), -first, t * (3.f * t - 2.f)}};
}

struct AttentionInputs {
  int64_t width, head_width;
  const float* node;     // (N, 5 width): query, key, three values
  const float* vectors;  // (N, 3, width)
  FilterTable filters;   // 4 width channels: of the key and the values
};

struct AttentionGradients {
  const float *from_scalars, *from_vectors;  // come in: (N, width), (N, 3, width)
  float *node, *carried;                     // (N, 5 width), (N, 3, width); or null, both, and then no table
  float* table;                              // as the table, or null
  float *directions, *envelope, *places;     // of each edge (E, 3), (E,), (E,) per knot; or null, all three
};

struct EdgeLayerInputs {
  int64_t width, head_width;
  int64_t filter_width;        // 3 width: of key, value and the edge's own change; 2 width: edges do not change
  const float* node;           // (N, 3 width): query, key, value
  const float* vectors;        // (N, 3, width)
  const float* mixed;          // (N, 3, 5 width), the target's and the source's parts of the change last; or null
  const float* edges;          // (E, width)
  const float* filter_weight;  // (width, filter_width); on CUDA (filter_width, width), as the next one
  const float* filter_bias;
  const float* spread_weight;  // (width, 2 width): scales of the sender's vectors and of the direction
  const float* spread_bias;
  const float *filters, *scales;  // on CUDA, what these make of edges (E, ...), before their activation
  bool smooth;                    // whether the vectors' messages vanish at the cutoff
};

// Of the cosine cutoff: `late_cutoff` of networks/encoders/equivariant_blocks.py.
OPENMM_GNN_HOST_DEVICE float late_cutoff(float envelope) {
  const float away = (1.f - envelope) * (1.f - envelope);
  return 1.f - away * away * away * away;
}

// scaled_tensors, tensor_products, tensor_squares.
enum class TensorFormula { kScaled, kProduct, kSquare };

struct TensorInputs {
  int64_t width;
  const float* parts;              // (N, 9, width)
  const float *receiver, *sender;  // (N, width), instead of parts: the first tensors are made of directions
  FilterTable filters;             // 3 width channels: of the parts
};

}  // namespace openmm_gnn
