// Arguments of the operators of pair_rows.h, from tensors to what the loops take, and room for their gradients.
#pragma once

#include "base/arguments.h"
#include "base/boxed.h"
#include "vector_gamd/pair_rows.h"

namespace openmm_gnn {

struct PairGraph {
  Tensor starts, entries, pairs, types, vectors, distances;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
};

struct MessageArguments {
  PairGraph graph;
  Tensor source, target, value, probe, carried, table, mixing;
  double start, cutoff;
  int64_t num_threads;

  using Fields =
      std::tuple<PairGraph, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, double, int64_t>;
};

struct StrengthArguments {
  PairGraph graph;
  Tensor total, left, probe, table, mixing, readout;
  double start, cutoff;
  int64_t num_threads;

  using Fields = std::tuple<PairGraph, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, double, int64_t>;
};

inline void check_channels(int64_t width, int64_t most) {
  check(width > 0 && width % 16 == 0 && width <= most,
        "the width is " + std::to_string(width) + ": give a multiple of 16, at most " + std::to_string(most));
}

inline PairEnds checked_ends(const CheckedArguments& given, const PairGraph& graph, int64_t num_atoms,
                             int64_t num_types) {
  const int64_t* pairs = given.get<int64_t>(graph.pairs, "pairs", {2, kAny});
  const int64_t count = graph.pairs.size(1);
  return {count, pairs, given.get<int64_t>(graph.types, "types", {count}),
          given.get<float>(graph.vectors, "vectors", {count, 3}),
          given.get<float>(graph.distances, "distances", {count}), num_atoms, num_types};
}

inline SplineTable spline_table(const float* values, const Tensor& table, double start, double cutoff) {
  check(table.size(1) >= 4 && start >= 0 && start < cutoff && cutoff < 1e18,
        "a radial table needs 4 knots and start below a finite cutoff");
  return {values, table.size(1), table.size(2), static_cast<float>(start), static_cast<float>(cutoff)};
}

// What a call brings, on whatever device.
struct MessageCall {
  CheckedArguments given;
  PairEnds ends;
  RowMessages in;

  MessageCall(const MessageArguments& from, int64_t most_channels) : given(from.graph.pairs, "pairs") {
    const int64_t atoms = size_of(from.value, "value", 0, 2), width = from.value.size(1);
    check_channels(width, most_channels);
    const int64_t vector_atoms = from.probe.size(0) == 0 ? 0 : atoms;
    const float* table = given.get<float>(from.table, "table", {kAny, kAny, 3 * width});
    in = {atoms,
          width,
          given.get<float>(from.source, "source", {atoms, 3 * width}),
          given.get<float>(from.target, "target", {atoms, 3 * width}),
          given.get<float>(from.value, "value", {atoms, width}),
          given.get_or_null<float>(from.probe, "probe", {vector_atoms, 3, width}),
          given.get_or_null<float>(from.carried, "carried", {vector_atoms, 3, width}),
          spline_table(table, from.table, from.start, from.cutoff),
          given.get<float>(from.mixing, "mixing", {3, 3 * width})};
    ends = checked_ends(given, from.graph, atoms, from.table.size(0));
  }

  RowMessageGradients incoming(const Tensor& scalars, const Tensor& vectors) const {
    RowMessageGradients out{};
    out.scalars = given.get<float>(scalars, "the gradient of scalars", {in.num_atoms, in.width});
    out.vectors = given.get<float>(vectors, "the gradient of vectors", {in.num_atoms, 3, in.width});
    return out;
  }
};

struct StrengthCall {
  CheckedArguments given;
  PairEnds ends;
  RowStrengths in;

  StrengthCall(const StrengthArguments& from, int64_t most_channels) : given(from.graph.pairs, "pairs") {
    const int64_t atoms = size_of(from.total, "total", 0, 2), width = from.total.size(1);
    check_channels(width, most_channels);
    const float* table = given.get<float>(from.table, "table", {kAny, kAny, width});
    in = {atoms,
          width,
          given.get<float>(from.total, "total", {atoms, width}),
          given.get<float>(from.left, "left", {atoms, width}),
          given.get<float>(from.probe, "probe", {atoms, 3, width}),
          spline_table(table, from.table, from.start, from.cutoff),
          given.get<float>(from.mixing, "mixing", {3, width}),
          given.get<float>(from.readout, "readout", {width})};
    ends = checked_ends(given, from.graph, atoms, from.table.size(0));
  }

  RowStrengthGradients incoming(const Tensor& strengths) const {
    RowStrengthGradients out{};
    out.strengths = given.get<float>(strengths, "the gradient of strengths", {ends.count});
    return out;
  }
};

// Tensors for the gradients, made by `make({sizes})`, in the order of the operators' results.
template <typename Make>
std::array<Tensor, 8> message_gradient_tensors(const MessageArguments& from, const MessageCall& call, bool geometry,
                                        bool weights, const Make& make) {
  const int64_t atoms = call.in.num_atoms, width = call.in.width, vector_atoms = from.probe.size(0);
  return {make({atoms, 3 * width}),
          make({atoms, 3 * width}),
          make({atoms, width}),
          make({vector_atoms, 3, width}),
          make({vector_atoms, 3, width}),
          make({weights ? from.table.size(0) : 0, from.table.size(1), 3 * width}),
          make({weights ? 3 : 0, 3 * width}),
          make({geometry ? call.ends.count : 0, 3})};
}

template <typename Make>
std::array<Tensor, 7> strength_gradient_tensors(const StrengthArguments& from, const StrengthCall& call, bool geometry,
                                         bool weights, const Make& make) {
  const int64_t atoms = call.in.num_atoms, width = call.in.width;
  return {make({atoms, width}),
          make({atoms, width}),
          make({atoms, 3, width}),
          make({weights ? from.table.size(0) : 0, from.table.size(1), width}),
          make({weights ? 3 : 0, width}),
          make({weights ? width : 0}),
          make({geometry ? call.ends.count : 0, 3})};
}

}  // namespace openmm_gnn
