// The operators of encoder_messages.h: checks, schemas and dispatch. On the CPU; gradients are in
// encoder_gradient_operators.cpp, and elsewhere the plain PyTorch of the models does the same.
#include <vector>

#include "base/tensor_access.h"
#include "encoders/cpu/encoder_checks.h"
#include "encoders/cpu/encoder_messages.h"
#include "base/cpu/sums.h"

namespace openmm_gnn {

namespace {

void push_all(const std::vector<Tensor>& results, StableIValue* stack) {
  for (size_t k = 0; k < results.size(); ++k) stack[k] = push_tensor(results[k]);
}

void boxed_attention(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), directions = pop_tensor(stack[1]), envelope = pop_tensor(stack[2]);
  const Tensor places = pop_tensor(stack[3]), node = pop_tensor(stack[4]), vectors = pop_tensor(stack[5]);
  const Tensor table = pop_tensor(stack[6]);
  const AttentionInputs in = checked_attention(node, vectors, table, pop_int(stack[7]));
  const int64_t atoms = node.size(0), width = in.width;
  const EncoderEdges edges = checked_edges(index, 1, atoms, &directions, &envelope, &places);
  Sums sums;
  const std::vector<Tensor> result{sums.add(node, {atoms, width}), sums.add(node, {atoms, 3, width})};
  sums.run(pop_int(stack[8]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    encoder_kernels().attention(edges, begin, end, in, out[0], out[1]);
  });
  push_all(result, stack);
}

void boxed_edge_layer(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), directions = pop_tensor(stack[1]), envelope = pop_tensor(stack[2]);
  const Tensor node = pop_tensor(stack[3]), vectors = pop_tensor(stack[4]), mixed = pop_tensor(stack[5]);
  const Tensor old = pop_tensor(stack[6]), filter_weight = pop_tensor(stack[7]), filter_bias = pop_tensor(stack[8]);
  const Tensor spread_weight = pop_tensor(stack[9]), spread_bias = pop_tensor(stack[10]);
  check(node.dim() == 2 && filter_bias.dim() == 1, "node or filter_bias has a wrong number of dimensions");
  const int64_t atoms = node.size(0), width = node.size(1) / 3, head_width = pop_int(stack[11]);
  check_width(width, head_width);
  const bool changes = filter_bias.size(0) == 3 * width;
  const int64_t filter_width = (changes ? 3 : 2) * width;
  check_floats(node, "node", {atoms, 3 * width});
  check_floats(vectors, "vectors", {atoms, 3, width});
  check_floats(mixed, "mixed", {atoms, 3, (changes ? 5 : 3) * width});
  check_floats(filter_weight, "filter_weight", {width, filter_width});
  check_floats(filter_bias, "filter_bias", {filter_width});
  check_floats(spread_weight, "spread_weight", {width, 2 * width});
  check_floats(spread_bias, "spread_bias", {2 * width});
  const EncoderEdges edges = checked_edges(index, 1, atoms, &directions, &envelope, nullptr);
  check_floats(old, "edges", {edges.count, width});
  const EdgeLayerInputs in{width,
                           head_width,
                           filter_width,
                           data<float>(node),
                           data<float>(vectors),
                           changes ? data<float>(mixed) : nullptr,
                           data<float>(old),
                           data<float>(filter_weight),
                           data<float>(filter_bias),
                           data<float>(spread_weight),
                           data<float>(spread_bias)};
  Sums sums;
  const Tensor changed = empty(vectors, {changes ? edges.count : 0, width}, aoti_torch_dtype_float32());
  const std::vector<Tensor> result{sums.add(node, {atoms, width}), sums.add(vectors, {atoms, 3, width}), changed};
  sums.run(pop_int(stack[12]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    std::vector<float> scratch(static_cast<size_t>(edge_layer_scratch(in)));
    encoder_kernels().edge_layer(edges, begin, end, in, scratch.data(), out[0], out[1], data<float>(changed));
  });
  push_all(result, stack);
}

void boxed_tensor_messages(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), places = pop_tensor(stack[1]), parts = pop_tensor(stack[2]);
  const Tensor table = pop_tensor(stack[3]);
  check(parts.dim() == 3, "parts has shape " + shape_text(parts) + ": give (number of atoms, 9, width)");
  const int64_t atoms = parts.size(0), width = parts.size(2);
  check_width(width, 1);
  check_floats(parts, "parts", {atoms, 9, width});
  const EncoderEdges edges = checked_edges(index, 0, atoms, nullptr, nullptr, &places);
  const TensorInputs in{width, data<float>(parts), nullptr, nullptr, filter_table(table, 3 * width)};
  Sums sums;
  const Tensor result = sums.add(parts, {atoms, 9, width});
  sums.run(pop_int(stack[4]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    encoder_kernels().tensors(edges, begin, end, in, out[0]);
  });
  stack[0] = push_tensor(result);
}

void boxed_first_tensors(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), directions = pop_tensor(stack[1]), places = pop_tensor(stack[2]);
  const Tensor receiver = pop_tensor(stack[3]), sender = pop_tensor(stack[4]), table = pop_tensor(stack[5]);
  check(receiver.dim() == 2, "receiver has shape " + shape_text(receiver) + ": give (number of atoms, width)");
  const int64_t atoms = receiver.size(0), width = receiver.size(1);
  check_width(width, 1);
  check_floats(receiver, "receiver", {atoms, width});
  check_floats(sender, "sender", {atoms, width});
  const EncoderEdges edges = checked_edges(index, 0, atoms, &directions, nullptr, &places);
  const TensorInputs in{width, nullptr, data<float>(receiver), data<float>(sender), filter_table(table, 3 * width)};
  Sums sums;
  const Tensor result = sums.add(receiver, {atoms, 9, width});
  sums.run(pop_int(stack[6]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    encoder_kernels().tensors(edges, begin, end, in, out[0]);
  });
  stack[0] = push_tensor(result);
}

// A loop over atoms with tensors (N, 9, width), one or two of them.
Tensor tensors_of_atoms(const Tensor& first, const Tensor& second, int64_t num_threads,
                        void (*loop)(const TensorAtoms&, int64_t, int64_t, float*)) {
  check(first.dim() == 3, "parts has shape " + shape_text(first) + ": give (number of atoms, 9, width)");
  const int64_t atoms = first.size(0), width = first.size(2);
  check_width(width, 1);
  check_floats(first, "parts", {atoms, 9, width});
  check_floats(second, "parts", {atoms, 9, width});
  const Tensor result = empty(first, {atoms, 9, width}, aoti_torch_dtype_float32());
  const TensorAtoms in{width, data<float>(first), data<float>(second)};
  Sums none;
  none.run(num_threads, atoms, [&](int64_t begin, int64_t end, const std::vector<float*>&) {
    loop(in, begin, end, data<float>(result));
  });
  return result;
}

void boxed_scaled_tensors(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor parts = pop_tensor(stack[0]);
  stack[0] = push_tensor(tensors_of_atoms(parts, parts, pop_int(stack[1]), encoder_kernels().scaled_tensors));
}

void boxed_tensor_products(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor first = pop_tensor(stack[0]), second = pop_tensor(stack[1]);
  stack[0] = push_tensor(tensors_of_atoms(first, second, pop_int(stack[2]), encoder_kernels().tensor_products));
}

void boxed_tensor_squares(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor parts = pop_tensor(stack[0]), change = pop_tensor(stack[1]);
  stack[0] = push_tensor(tensors_of_atoms(parts, change, pop_int(stack[2]), encoder_kernels().tensor_squares));
}

void boxed_tabulated_filters(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor places = pop_tensor(stack[0]), table = pop_tensor(stack[1]);
  check(places.dim() == 1 && table.dim() == 3, "places or table have a wrong shape");
  check_places(places, places.size(0));
  const FilterTable filters = filter_table(table, table.size(2));
  check(filters.channels % 16 == 0, "a filter table needs a multiple of 16 channels");
  const Tensor result = empty(places, {places.size(0), filters.channels}, aoti_torch_dtype_float32());
  Sums none;
  none.run(pop_int(stack[2]), places.size(0), [&](int64_t begin, int64_t end, const std::vector<float*>&) {
    encoder_kernels().filters(data<double>(places), begin, end, filters, data<float>(result));
  });
  stack[0] = push_tensor(result);
}

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY_FRAGMENT(openmm_gnn, library) {
  library.def(
      "attention_messages(Tensor edge_index, Tensor directions, Tensor envelope, Tensor places, Tensor node,"
      " Tensor vectors, Tensor table, int head_width, int num_threads) -> (Tensor scalars, Tensor vectors)");
  library.def(
      "edge_layer(Tensor edge_index, Tensor directions, Tensor envelope, Tensor node, Tensor vectors, Tensor mixed,"
      " Tensor edges, Tensor filter_weight, Tensor filter_bias, Tensor spread_weight, Tensor spread_bias,"
      " int head_width, int num_threads) -> (Tensor scalars, Tensor vectors, Tensor edges)");
  library.def(
      "tensor_messages(Tensor edge_index, Tensor places, Tensor parts, Tensor table, int num_threads) -> Tensor");
  library.def(
      "first_tensors(Tensor edge_index, Tensor directions, Tensor places, Tensor receiver, Tensor sender, Tensor table,"
      " int num_threads) -> Tensor");
  library.def("scaled_tensors(Tensor parts, int num_threads) -> Tensor");
  library.def("tensor_products(Tensor first, Tensor second, int num_threads) -> Tensor");
  library.def("tensor_squares(Tensor parts, Tensor change, int num_threads) -> Tensor");
  library.def("tabulated_filters(Tensor places, Tensor table, int num_threads) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("attention_messages", &openmm_gnn::boxed_attention);
  library.impl("edge_layer", &openmm_gnn::boxed_edge_layer);
  library.impl("tensor_messages", &openmm_gnn::boxed_tensor_messages);
  library.impl("first_tensors", &openmm_gnn::boxed_first_tensors);
  library.impl("scaled_tensors", &openmm_gnn::boxed_scaled_tensors);
  library.impl("tensor_products", &openmm_gnn::boxed_tensor_products);
  library.impl("tensor_squares", &openmm_gnn::boxed_tensor_squares);
  library.impl("tabulated_filters", &openmm_gnn::boxed_tabulated_filters);
}
