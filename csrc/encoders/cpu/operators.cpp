// The operators of ../messages.h on the CPU: checks, memory and threads. Those of a whole network are in network_operators.cpp.
#include <vector>

#include "base/cpu/sums.h"
#include "encoders/arguments.h"
#include "encoders/cpu/messages.h"

namespace openmm_gnn {

namespace {

using Arrays = std::vector<float*>;

// Edges are read once, in their own order: there are no rows.
Tensor edge_rows_cpu(const Tensor& index, const Tensor&, double, int64_t, int64_t, bool) {
  return empty(index, {0}, aoti_torch_dtype_int32());
}

// ---- messages and their gradients -----------------------------------------------------------------------------------

// Edges and inputs of attention_messages, tensor_messages or first_tensors, which their gradients have too.
template <class Arguments>
struct Call {
  CheckedArguments given;
  EncoderEdges edges;
  decltype(inputs_of(given, std::declval<Arguments>())) in;
  int64_t atoms;

  explicit Call(const Arguments& arguments)
      : given(arguments.edges.index, "edge_index"), edges(checked_edges(given, arguments.edges, Arguments::kReceiving)),
        in(inputs_of(given, arguments)), atoms(arguments.num_atoms()) {
    check_width(in.width, arguments.head_width);
    check_atoms(edges, atoms);
  }
};

std::tuple<Tensor, Tensor> attention_messages_cpu(const AttentionArguments& arguments) {
  const Call call(arguments);
  Sums sums;
  const Tensor scalars = sums.add(arguments.node, {call.atoms, call.in.width});
  const Tensor vectors = sums.add(arguments.node, {call.atoms, 3, call.in.width});
  sums.run(arguments.num_threads, call.edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    encoder_kernels().attention(call.edges, begin, end, call.in, out[0], out[1]);
  });
  return {scalars, vectors};
}

std::array<Tensor, 6> attention_messages_backward_cpu(const AttentionArguments& arguments, const Tensor& from_scalars,
                                                      const Tensor& from_vectors, bool geometry, bool filters) {
  const Call call(arguments);
  const AttentionInputs& in = call.in;
  const float* from[] = {call.given.get<float>(from_scalars, "the gradient of scalars", {call.atoms, in.width}),
                         call.given.get<float>(from_vectors, "the gradient of vectors", {call.atoms, 3, in.width})};
  const Tensor& like = arguments.node;
  const int64_t count = geometry ? call.edges.count : 0;
  Sums sums;
  const std::array<Tensor, 6> result{sums.add(like, {call.atoms, 5 * in.width}),
                                     sums.add(like, {call.atoms, 3, in.width}),
                                     sums.add(like, {filters ? in.filters.knots : 0, 2, in.filters.channels}),
                                     floats_like(like, {count, 3}),
                                     floats_like(like, {count}),
                                     floats_like(like, {count})};
  sums.run(arguments.num_threads, call.edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    const AttentionGradients gradients{from[0],
                                       from[1],
                                       out[0],
                                       out[1],
                                       filters ? out[2] : nullptr,
                                       geometry ? data<float>(result[3]) : nullptr,
                                       data<float>(result[4]),
                                       data<float>(result[5])};
    encoder_kernels().attention_gradients(call.edges, begin, end, in, gradients);
  });
  return result;
}

// (rows, columns) -> (columns, rows).
std::vector<float> transposed(const float* matrix, int64_t rows, int64_t columns) {
  std::vector<float> result(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) result[column * rows + row] = matrix[row * columns + column];
  }
  return result;
}

std::tuple<Tensor, Tensor, Tensor> edge_layer_cpu(const EdgeLayerArguments& arguments) {
  const CheckedArguments given(arguments.edges.index, "edge_index");
  const EncoderEdges edges = checked_edges(given, arguments.edges, 1);
  EdgeLayerInputs in = edge_layer_inputs(given, arguments, edges.count);
  const Tensor& like = arguments.node;
  const int64_t atoms = like.size(0);
  check_width(in.width, in.head_width);
  check_atoms(edges, atoms);
  const std::vector<float> filter_weight = transposed(in.filter_weight, in.filter_width, in.width);
  const std::vector<float> spread_weight = transposed(in.spread_weight, 2 * in.width, in.width);
  in.filter_weight = filter_weight.data();
  in.spread_weight = spread_weight.data();
  Sums sums;
  const Tensor scalars = sums.add(like, {atoms, in.width}), vectors = sums.add(like, {atoms, 3, in.width});
  const Tensor changed = floats_like(like, {in.mixed != nullptr ? edges.count : 0, in.width});
  sums.run(arguments.num_threads, edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    std::vector<float> scratch(static_cast<size_t>(edge_layer_scratch(in)));
    encoder_kernels().edge_layer(edges, begin, end, in, scratch.data(), out[0], out[1], data<float>(changed));
  });
  return {scalars, vectors, changed};
}

template <class Arguments>
Tensor tensor_sums_cpu(const Arguments& arguments) {
  const Call call(arguments);
  Sums sums;
  const Tensor result = sums.add(arguments.table, {call.atoms, 9, call.in.width});
  sums.run(arguments.num_threads, call.edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    encoder_kernels().tensors(call.edges, begin, end, call.in, out[0]);
  });
  return result;
}

std::array<Tensor, 3> tensor_messages_backward_cpu(const TensorArguments& arguments, const Tensor& gradient,
                                                   bool geometry, bool filters) {
  const Call call(arguments);
  const int64_t width = call.in.width;
  const float* from = call.given.get<float>(gradient, "the gradient of sums", {call.atoms, 9, width});
  Sums sums;
  const Tensor parts = sums.add(gradient, {call.atoms, 9, width});
  const Tensor table = sums.add(gradient, {filters ? call.in.filters.knots : 0, 2, 3 * width});
  const Tensor places = floats_like(gradient, {geometry ? call.edges.count : 0});
  sums.run(arguments.num_threads, call.edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    const TensorGradients gradients{from, out[0], nullptr, filters ? out[1] : nullptr,
                                    geometry ? data<float>(places) : nullptr, nullptr};
    encoder_kernels().tensor_gradients(call.edges, begin, end, call.in, gradients);
  });
  return {parts, table, places};
}

std::array<Tensor, 5> first_tensors_backward_cpu(const FirstTensorArguments& arguments, const Tensor& gradient,
                                                 bool geometry, bool filters) {
  const Call call(arguments);
  const int64_t width = call.in.width, count = geometry ? call.edges.count : 0;
  const float* from = call.given.get<float>(gradient, "the gradient of sums", {call.atoms, 9, width});
  Sums sums;
  const Tensor receiver = sums.add(gradient, {call.atoms, width}), sender = sums.add(gradient, {call.atoms, width});
  const Tensor table = sums.add(gradient, {filters ? call.in.filters.knots : 0, 2, 3 * width});
  const Tensor directions = floats_like(gradient, {count, 3}), places = floats_like(gradient, {count});
  sums.run(arguments.num_threads, call.edges.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    const TensorGradients gradients{from, out[1], out[0], filters ? out[2] : nullptr,
                                    geometry ? data<float>(places) : nullptr, data<float>(directions)};
    encoder_kernels().tensor_gradients(call.edges, begin, end, call.in, gradients);
  });
  return {receiver, sender, table, directions, places};
}

// ---- tensors of atoms, and tables -----------------------------------------------------------------------------------

using TensorLoop = void (*)(const TensorAtoms&, int64_t begin, int64_t end, float* parts);

template <TensorLoop EncoderKernels::*kLoop>
Tensor tensors_of_atoms_cpu(const Tensor& first, const Tensor& second, int64_t num_threads) {
  const CheckedArguments given(first, "parts");
  const int64_t width = size_of(first, "parts", 2, 3), atoms = first.size(0);
  check_width(width, 1);
  const TensorAtoms in{width, given.get<float>(first, "parts", {atoms, 9, width}),
                       given.get<float>(second, "parts", {atoms, 9, width})};
  const Tensor result = floats_like(first, {atoms, 9, width});
  for_pairs(num_threads, atoms, [&](int64_t begin, int64_t end) {
    (encoder_kernels().*kLoop)(in, begin, end, data<float>(result));
  });
  return result;
}

Tensor scaled_tensors_cpu(const Tensor& parts, int64_t num_threads) {
  return tensors_of_atoms_cpu<&EncoderKernels::scaled_tensors>(parts, parts, num_threads);
}

Tensor tabulated_filters_cpu(const Tensor& places, const Tensor& table, int64_t num_threads) {
  const CheckedArguments given(places, "places");
  const int64_t count = size_of(places, "places", 0, 1);
  const double* knots = given.get<double>(places, "places", {count});
  const FilterTable filters = filter_table(given, table, size_of(table, "a filter table", 2, 3));
  check(filters.channels % 16 == 0, "a filter table needs a multiple of 16 channels");
  const Tensor result = floats_like(places, {count, filters.channels});
  for_pairs(num_threads, count, [&](int64_t begin, int64_t end) {
    encoder_kernels().filters(knots, begin, end, filters, data<float>(result));
  });
  return result;
}

ActivatedRows activated_rows(const CheckedArguments& given, const Tensor& rows, const Tensor& bias) {
  const int64_t channels = size_of(rows, "rows", 2, 3);
  check(channels % 16 == 0, "rows has shape " + shape_text(rows) + ": give (knots, 2, a multiple of 16 channels)");
  return {channels, given.get<float>(rows, "rows", {kAny, 2, channels}), given.get<float>(bias, "bias", {channels}),
          nullptr};
}

Tensor activated_table_cpu(const Tensor& rows, const Tensor& bias) {
  const CheckedArguments given(rows, "rows");
  const ActivatedRows in = activated_rows(given, rows, bias);
  const Tensor table = floats_like(rows, {rows.size(0), 2, in.channels});
  encoder_kernels().activate(in, 0, rows.size(0), data<float>(table));
  return table;
}

std::tuple<Tensor, Tensor> activated_table_backward_cpu(const Tensor& rows, const Tensor& bias, const Tensor& gradient) {
  const CheckedArguments given(rows, "rows");
  ActivatedRows in = activated_rows(given, rows, bias);
  in.gradient = given.get<float>(gradient, "the gradient of a table", {rows.size(0), 2, in.channels});
  Sums sums;
  const Tensor of_bias = sums.add(bias, {in.channels});
  const Tensor of_rows = floats_like(rows, {rows.size(0), 2, in.channels});
  encoder_kernels().activate_back(in, 0, rows.size(0), data<float>(of_rows), data<float>(of_bias));
  return {of_rows, of_bias};
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kEdgeRows, edge_rows_cpu>(library);
  implement<kAttentionMessages, attention_messages_cpu>(library);
  implement<kAttentionMessagesBackward, attention_messages_backward_cpu>(library);
  implement<kEdgeLayer, edge_layer_cpu>(library);
  implement<kTensorMessages, tensor_sums_cpu<TensorArguments>>(library);
  implement<kTensorMessagesBackward, tensor_messages_backward_cpu>(library);
  implement<kFirstTensors, tensor_sums_cpu<FirstTensorArguments>>(library);
  implement<kFirstTensorsBackward, first_tensors_backward_cpu>(library);
  implement<kScaledTensors, scaled_tensors_cpu>(library);
  implement<kTensorProducts, tensors_of_atoms_cpu<&EncoderKernels::tensor_products>>(library);
  implement<kTensorSquares, tensors_of_atoms_cpu<&EncoderKernels::tensor_squares>>(library);
  implement<kTabulatedFilters, tabulated_filters_cpu>(library);
  implement<kActivatedTable, activated_table_cpu>(library);
  implement<kActivatedTableBackward, activated_table_backward_cpu>(library);
}

}  // namespace openmm_gnn
