// What the operators of messages.h ask of their tensors, on either device; limits of the width are the device's own.
#pragma once

#include "base/arguments.h"
#include "base/boxed.h"
#include "encoders/messages.h"

namespace openmm_gnn {

struct EdgeArguments {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
  Tensor index, rows, directions, envelope, places;
};

struct AttentionArguments {
  using Fields = std::tuple<EdgeArguments, Tensor, Tensor, Tensor, int64_t, int64_t>;
  static constexpr int64_t kReceiving = 1;  // row of edge_index
  EdgeArguments edges;
  Tensor node, vectors, table;
  int64_t head_width, num_threads;

  int64_t num_atoms() const { return node.size(0); }
};

struct EdgeLayerArguments {
  using Fields = std::tuple<EdgeArguments, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int64_t, bool,
                            int64_t>;
  EdgeArguments edges;
  Tensor node, vectors, mixed, features, filter_weight, filter_bias, spread_weight, spread_bias;
  int64_t head_width;
  bool smooth;
  int64_t num_threads;
};

struct TensorArguments {
  using Fields = std::tuple<EdgeArguments, Tensor, Tensor, int64_t>;
  static constexpr int64_t kReceiving = 0, head_width = 1;
  EdgeArguments edges;
  Tensor parts, table;
  int64_t num_threads;

  int64_t num_atoms() const { return parts.size(0); }
};

struct FirstTensorArguments {
  using Fields = std::tuple<EdgeArguments, Tensor, Tensor, Tensor, int64_t>;
  static constexpr int64_t kReceiving = 0, head_width = 1;
  EdgeArguments edges;
  Tensor receiver, sender, table;
  int64_t num_threads;

  int64_t num_atoms() const { return receiver.size(0); }
};

// Row `receiving` of edge_index sums, the other one sends. Atoms are not looked at.
inline EncoderEdges checked_edges(const CheckedArguments& given, const EdgeArguments& edges, int64_t receiving) {
  const int64_t count = size_of(edges.index, "edge_index", 1, 2);
  const int64_t* atoms = given.get<int64_t>(edges.index, "edge_index", {2, count});
  return {count,
          atoms + receiving * count,
          atoms + (1 - receiving) * count,
          given.get<float>(edges.directions, "directions", {count, 3}),
          given.get<float>(edges.envelope, "envelope", {count}),
          given.get<double>(edges.places, "places", {count})};
}

inline FilterTable filter_table(const CheckedArguments& given, const Tensor& table, int64_t channels) {
  const float* values = given.get<float>(table, "a filter table", {kAny, 2, channels});
  check(table.size(0) >= 2, "a filter table needs 2 knots");
  return {values, table.size(0), channels};
}

inline AttentionInputs inputs_of(const CheckedArguments& given, const AttentionArguments& in) {
  const int64_t width = size_of(in.node, "node", 1, 2) / 5, atoms = in.node.size(0);
  return {width, in.head_width, given.get<float>(in.node, "node", {atoms, 5 * width}),
          given.get<float>(in.vectors, "vectors", {atoms, 3, width}), filter_table(given, in.table, 4 * width)};
}

inline EdgeLayerInputs edge_layer_inputs(const CheckedArguments& given, const EdgeLayerArguments& in, int64_t num_edges) {
  const int64_t width = size_of(in.node, "node", 1, 2) / 3, atoms = in.node.size(0);
  const bool changes = size_of(in.filter_bias, "filter_bias", 0, 1) == 3 * width;
  const int64_t filter_width = (changes ? 3 : 2) * width;
  const float* mixed = given.get<float>(in.mixed, "mixed", {atoms, 3, (changes ? 5 : 3) * width});
  return {width,
          in.head_width,
          filter_width,
          given.get<float>(in.node, "node", {atoms, 3 * width}),
          given.get<float>(in.vectors, "vectors", {atoms, 3, width}),
          changes ? mixed : nullptr,
          given.get<float>(in.features, "edges", {num_edges, width}),
          given.get<float>(in.filter_weight, "filter_weight", {filter_width, width}),
          given.get<float>(in.filter_bias, "filter_bias", {filter_width}),
          given.get<float>(in.spread_weight, "spread_weight", {2 * width, width}),
          given.get<float>(in.spread_bias, "spread_bias", {2 * width}),
          nullptr,
          nullptr,
          in.smooth};
}

inline TensorInputs inputs_of(const CheckedArguments& given, const TensorArguments& in) {
  const int64_t width = size_of(in.parts, "parts", 2, 3);
  return {width, given.get<float>(in.parts, "parts", {kAny, 9, width}), nullptr, nullptr,
          filter_table(given, in.table, 3 * width)};
}

inline TensorInputs inputs_of(const CheckedArguments& given, const FirstTensorArguments& in) {
  const int64_t width = size_of(in.receiver, "receiver", 1, 2), atoms = in.receiver.size(0);
  return {width, nullptr, given.get<float>(in.receiver, "receiver", {atoms, width}),
          given.get<float>(in.sender, "sender", {atoms, width}), filter_table(given, in.table, 3 * width)};
}

// Of the CPU's operators.
inline void check_width(int64_t width, int64_t head_width) {
  check(width > 0 && width % 16 == 0 && width / 16 <= kMostEncoderGroups,
        "the width is " + std::to_string(width) + ": give a multiple of 16, at most 1024");
  const bool fits = head_width > 0 && width % head_width == 0 && (head_width % 16 == 0 || 16 % head_width == 0);
  check(fits, "heads of " + std::to_string(head_width) + " channels: give 1, 2, 4, 8 or a multiple of 16");
}

// Looks at the atoms of the edges, so on the CPU alone.
inline void check_atoms(const EncoderEdges& edges, int64_t num_atoms) {
  for (int64_t k = 0; k < edges.count; ++k) {
    for (const int64_t atom : {edges.senders[k], edges.receivers[k]}) {
      if (atom < 0 || atom >= num_atoms) {
        fail("edge " + std::to_string(k) + " holds atom " + std::to_string(atom) + ": there are " +
             std::to_string(num_atoms));
      }
    }
  }
}

}  // namespace openmm_gnn
