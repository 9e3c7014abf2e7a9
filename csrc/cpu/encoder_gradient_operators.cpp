// The operators of encoder_gradients.h: checks, schemas and dispatch.
#include <vector>

#include "../tensor_access.h"
#include "encoder_checks.h"
#include "encoder_gradients.h"
#include "sums.h"

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
  library.def("activated_table(Tensor rows, Tensor bias) -> Tensor");
  library.def("activated_table_backward(Tensor rows, Tensor bias, Tensor gradient) -> (Tensor rows, Tensor bias)");
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("attention_messages_backward", &openmm_gnn::boxed_attention_backward);
  library.impl("activated_table", &openmm_gnn::boxed_activated_table);
  library.impl("activated_table_backward", &openmm_gnn::boxed_activated_table_backward);
}
