// The operators of encoder_gradients.h: checks, schemas and dispatch.
#include <vector>

#include "base/tensor_access.h"
#include "encoders/cpu/encoder_checks.h"
#include "encoders/cpu/encoder_gradients.h"
#include "base/cpu/sums.h"

namespace openmm_gnn {

namespace {

void boxed_attention_backward(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), directions = pop_tensor(stack[1]), envelope = pop_tensor(stack[2]);
  const Tensor places = pop_tensor(stack[3]), node = pop_tensor(stack[4]), vectors = pop_tensor(stack[5]);
  const Tensor table = pop_tensor(stack[6]), from_scalars = pop_tensor(stack[7]), from_vectors = pop_tensor(stack[8]);
  const bool of_geometry = pop_bool(stack[11]), of_table = pop_bool(stack[12]);
  const AttentionInputs in = checked_attention(node, vectors, table, pop_int(stack[9]));
  const int64_t atoms = node.size(0), width = in.width;
  check_floats(from_scalars, "the gradient of scalars", {atoms, width});
  check_floats(from_vectors, "the gradient of vectors", {atoms, 3, width});
  const EncoderEdges edges = checked_edges(index, 1, atoms, &directions, &envelope, &places);
  Sums sums;
  const int64_t count = of_geometry ? edges.count : 0;
  const std::vector<Tensor> result{
      sums.add(node, {atoms, 5 * width}),
      sums.add(node, {atoms, 3, width}),
      sums.add(node, {of_table ? in.filters.knots : 0, 2, in.filters.channels}),
      empty(node, {count, 3}, aoti_torch_dtype_float32()),
      empty(node, {count}, aoti_torch_dtype_float32()),
      empty(node, {count}, aoti_torch_dtype_float32())};
  sums.run(pop_int(stack[10]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const AttentionGradients gradients{data<float>(from_scalars),
                                       data<float>(from_vectors),
                                       out[0],
                                       out[1],
                                       of_table ? out[2] : nullptr,
                                       of_geometry ? data<float>(result[3]) : nullptr,
                                       data<float>(result[4]),
                                       data<float>(result[5])};
    encoder_gradient_kernels().attention(edges, begin, end, in, gradients);
  });
  for (size_t k = 0; k < result.size(); ++k) stack[k] = push_tensor(result[k]);
}

void boxed_tensor_messages_backward(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), places = pop_tensor(stack[1]), parts = pop_tensor(stack[2]);
  const Tensor table = pop_tensor(stack[3]), from = pop_tensor(stack[4]);
  const bool of_geometry = pop_bool(stack[6]), of_table = pop_bool(stack[7]);
  check(parts.dim() == 3, "parts has shape " + shape_text(parts) + ": give (number of atoms, 9, width)");
  const int64_t atoms = parts.size(0), width = parts.size(2);
  check_width(width, 1);
  check_floats(parts, "parts", {atoms, 9, width});
  check_floats(from, "the gradient of sums", {atoms, 9, width});
  const EncoderEdges edges = checked_edges(index, 0, atoms, nullptr, nullptr, &places);
  const TensorInputs in{width, data<float>(parts), nullptr, nullptr, filter_table(table, 3 * width)};
  Sums sums;
  const Tensor of_parts = sums.add(parts, {atoms, 9, width});
  const Tensor of_filters = sums.add(parts, {of_table ? in.filters.knots : 0, 2, 3 * width});
  const Tensor of_places = empty(parts, {of_geometry ? edges.count : 0}, aoti_torch_dtype_float32());
  sums.run(pop_int(stack[5]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const TensorGradients gradients{data<float>(from), out[0], nullptr, of_table ? out[1] : nullptr,
                                    of_geometry ? data<float>(of_places) : nullptr, nullptr};
    encoder_gradient_kernels().tensors(edges, begin, end, in, gradients);
  });
  stack[0] = push_tensor(of_places), stack[1] = push_tensor(of_parts), stack[2] = push_tensor(of_filters);
}

void boxed_first_tensors_backward(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor index = pop_tensor(stack[0]), directions = pop_tensor(stack[1]), places = pop_tensor(stack[2]);
  const Tensor receiver = pop_tensor(stack[3]), sender = pop_tensor(stack[4]), table = pop_tensor(stack[5]);
  const Tensor from = pop_tensor(stack[6]);
  const bool of_geometry = pop_bool(stack[8]), of_table = pop_bool(stack[9]);
  check(receiver.dim() == 2, "receiver has shape " + shape_text(receiver) + ": give (number of atoms, width)");
  const int64_t atoms = receiver.size(0), width = receiver.size(1);
  check_width(width, 1);
  check_floats(receiver, "receiver", {atoms, width});
  check_floats(sender, "sender", {atoms, width});
  check_floats(from, "the gradient of sums", {atoms, 9, width});
  const EncoderEdges edges = checked_edges(index, 0, atoms, &directions, nullptr, &places);
  const TensorInputs in{width, nullptr, data<float>(receiver), data<float>(sender), filter_table(table, 3 * width)};
  Sums sums;
  const Tensor of_receiver = sums.add(receiver, {atoms, width}), of_sender = sums.add(sender, {atoms, width});
  const Tensor of_filters = sums.add(receiver, {of_table ? in.filters.knots : 0, 2, 3 * width});
  const int64_t count = of_geometry ? edges.count : 0;
  const Tensor of_directions = empty(receiver, {count, 3}, aoti_torch_dtype_float32());
  const Tensor of_places = empty(receiver, {count}, aoti_torch_dtype_float32());
  sums.run(pop_int(stack[7]), edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const TensorGradients gradients{data<float>(from), out[1], out[0], of_table ? out[2] : nullptr,
                                    of_geometry ? data<float>(of_places) : nullptr, data<float>(of_directions)};
    encoder_gradient_kernels().tensors(edges, begin, end, in, gradients);
  });
  const std::vector<Tensor> result{of_directions, of_places, of_receiver, of_sender, of_filters};
  for (size_t k = 0; k < result.size(); ++k) stack[k] = push_tensor(result[k]);
}

ActivatedRows checked_rows(const Tensor& rows, const Tensor& bias, const Tensor* gradient) {
  check(rows.dim() == 3 && rows.size(2) % 16 == 0,
        "rows has shape " + shape_text(rows) + ": give (knots, 2, a multiple of 16 channels)");
  const int64_t knots = rows.size(0), channels = rows.size(2);
  check_floats(rows, "rows", {knots, 2, channels});
  check_floats(bias, "bias", {channels});
  if (gradient) check_floats(*gradient, "the gradient of a table", {knots, 2, channels});
  return {channels, data<float>(rows), data<float>(bias), gradient ? data<float>(*gradient) : nullptr};
}

void boxed_activated_table(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor rows = pop_tensor(stack[0]), bias = pop_tensor(stack[1]);
  const ActivatedRows in = checked_rows(rows, bias, nullptr);
  const Tensor table = empty(rows, {rows.size(0), 2, in.channels}, aoti_torch_dtype_float32());
  encoder_gradient_kernels().activate(in, 0, rows.size(0), data<float>(table));
  stack[0] = push_tensor(table);
}

void boxed_activated_table_backward(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor rows = pop_tensor(stack[0]), bias = pop_tensor(stack[1]), gradient = pop_tensor(stack[2]);
  const ActivatedRows in = checked_rows(rows, bias, &gradient);
  Sums sums;
  const Tensor of_bias = sums.add(bias, {in.channels});
  const Tensor of_rows = empty(rows, {rows.size(0), 2, in.channels}, aoti_torch_dtype_float32());
  encoder_gradient_kernels().activate_back(in, 0, rows.size(0), data<float>(of_rows), data<float>(of_bias));
  stack[0] = push_tensor(of_rows);
  stack[1] = push_tensor(of_bias);
}

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY_FRAGMENT(openmm_gnn, library) {
  library.def(
      "attention_messages_backward(Tensor edge_index, Tensor directions, Tensor envelope, Tensor places, Tensor node,"
      " Tensor vectors, Tensor table, Tensor scalar_gradient, Tensor vector_gradient, int head_width, int num_threads,"
      " bool geometry, bool filters) -> (Tensor node, Tensor vectors, Tensor table, Tensor directions,"
      " Tensor envelope, Tensor places)");
  library.def(
      "tensor_messages_backward(Tensor edge_index, Tensor places, Tensor parts, Tensor table, Tensor gradient,"
      " int num_threads, bool geometry, bool filters) -> (Tensor places, Tensor parts, Tensor table)");
  library.def(
      "first_tensors_backward(Tensor edge_index, Tensor directions, Tensor places, Tensor receiver, Tensor sender,"
      " Tensor table, Tensor gradient, int num_threads, bool geometry, bool filters) -> (Tensor directions,"
      " Tensor places, Tensor receiver, Tensor sender, Tensor table)");
  library.def("activated_table(Tensor rows, Tensor bias) -> Tensor");
  library.def("activated_table_backward(Tensor rows, Tensor bias, Tensor gradient) -> (Tensor rows, Tensor bias)");
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("attention_messages_backward", &openmm_gnn::boxed_attention_backward);
  library.impl("tensor_messages_backward", &openmm_gnn::boxed_tensor_messages_backward);
  library.impl("first_tensors_backward", &openmm_gnn::boxed_first_tensors_backward);
  library.impl("activated_table", &openmm_gnn::boxed_activated_table);
  library.impl("activated_table_backward", &openmm_gnn::boxed_activated_table_backward);
}
