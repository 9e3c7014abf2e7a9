// Checks, memory, device and stream of the operators of ../edge_rows.h, between PyTorch's dispatcher and edge_sums.cu.
#include <torch/csrc/stable/accelerator.h>

#include "base/cuda/boxed_operators.h"
#include "base/cuda/device_arguments.h"
#include "encoders/cuda/edge_block.h"
#include "encoders/cuda/edge_sums.h"

namespace openmm_gnn::cuda {

namespace {

void check_edge_width(int64_t width, int64_t head_width) {
  check(fits_edge_rows(width, head_width), "features of " + std::to_string(width) + " channels in heads of " +
                                               std::to_string(head_width) + ": give a multiple of 16, at most " +
                                               std::to_string(kEdgeThreads) + ", and heads that divide it");
}

// Arguments 0 to 2 of the operators below: rows and senders.
struct GivenRows {
  Tensor starts, order, senders;
  int64_t count;
  EdgeRows rows;
};

GivenRows pop_rows(StableIValue* stack, int64_t num_atoms) {
  GivenRows given{pop_tensor(stack[0]), pop_tensor(stack[1]), pop_tensor(stack[2]), 0, {}};
  check(given.senders.dim() == 1, "senders has shape " + shape_text(given.senders) + ": give (number of edges,)");
  given.count = given.senders.size(0);
  check_argument(given.senders, "senders", {given.count}, aoti_torch_dtype_int64(), given.senders);
  check_argument(given.starts, "starts", {num_atoms + 1}, aoti_torch_dtype_int32(), given.senders);
  check_argument(given.order, "order", {given.count}, aoti_torch_dtype_int32(), given.senders);
  given.rows = {data<int32_t>(given.starts), data<int32_t>(given.order), num_atoms, data<int64_t>(given.senders)};
  return given;
}

const float* directions_of(const Tensor& directions, const GivenRows& given) {
  check_floats(directions, "directions", {given.count, 3}, given.senders);
  return data<float>(directions);
}

const float* envelope_of(const Tensor& envelope, const GivenRows& given) {
  check_floats(envelope, "envelope", {given.count}, given.senders);
  return data<float>(envelope);
}

const double* places_of(const Tensor& places, const GivenRows& given) {
  check(dtype_of(places) == aoti_torch_dtype_float64() && places.is_contiguous() && places.dim() == 1 &&
            places.size(0) == given.count,
        "places has shape " + shape_text(places) + ": give (" + std::to_string(given.count) + "), float64, contiguous");
  return data<double>(places);
}

HermiteTable table_of(const Tensor& table, int64_t channels, const GivenRows& given) {
  check_floats(table, "a filter table", {-1, 2, channels}, given.senders);
  check(table.size(0) >= 2, "a filter table needs 2 knots");
  return {data<float>(table), table.size(0), channels};
}

void check_atoms(const Tensor& tensor, const char* name, int64_t dimensions) {
  check(tensor.dim() == dimensions, std::string(name) + " has shape " + shape_text(tensor) + ": give " +
                                        std::to_string(dimensions) + " dimensions, of which the first is the atoms'");
}

// Arguments 3 to 8 of attention_rows and its gradients.
struct AttentionTensors {
  Tensor directions, envelope, places, node, carried, table;
};

AttentionTensors pop_attention(StableIValue* stack) {
  return {pop_tensor(stack[3]), pop_tensor(stack[4]), pop_tensor(stack[5]),
          pop_tensor(stack[6]), pop_tensor(stack[7]), pop_tensor(stack[8])};
}

AttentionRows attention_of(const AttentionTensors& tensors, const GivenRows& given, int64_t head_width) {
  const int64_t atoms = given.rows.num_atoms, width = tensors.node.size(1) / 5;
  check_edge_width(width, head_width);
  check_floats(tensors.node, "node", {atoms, 5 * width}, given.senders);
  check_floats(tensors.carried, "vectors", {atoms, 3, width}, given.senders);
  return {width, head_width, data<float>(tensors.node), data<float>(tensors.carried),
          table_of(tensors.table, 4 * width, given)};
}

EdgeGeometry geometry_of(const AttentionTensors& tensors, const GivenRows& given) {
  return {directions_of(tensors.directions, given), envelope_of(tensors.envelope, given),
          places_of(tensors.places, given)};
}

Tensor launch_tensors(const Tensor& first, const Tensor& second, TensorFormula formula) {
  check_atoms(first, "parts", 3);
  const int64_t atoms = first.size(0), width = first.size(2);
  check_floats(first, "parts", {atoms, 9, width}, first);
  check_floats(second, "parts", {atoms, 9, width}, first);
  const torch::stable::accelerator::DeviceGuard guard(first.get_device_index());
  const Tensor result = floats_like(first, {atoms, 9, width});
  launch_tensors_of_atoms(stream_of_device(first), formula, atoms, width, data<float>(first), data<float>(second),
                          data<float>(result));
  return result;
}

}  // namespace

void boxed_edge_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor receivers = pop_tensor(stack[0]);
  const int64_t atoms = pop_int(stack[1]);
  check(receivers.dim() == 1 && receivers.size(0) < (int64_t(1) << 30),
        "receivers has shape " + shape_text(receivers) + ": give (number of edges,), fewer than 2^30");
  const int64_t count = receivers.size(0);
  check_argument(receivers, "receivers", {count}, aoti_torch_dtype_int64(), receivers);
  check(atoms >= 0 && atoms < (int64_t(1) << 30), "num_atoms is " + std::to_string(atoms) + ": give 0 to 2^30 - 1");
  const torch::stable::accelerator::DeviceGuard guard(receivers.get_device_index());
  const Tensor starts = empty(receivers, {atoms + 1}, aoti_torch_dtype_int32());
  const Tensor order = empty(receivers, {count}, aoti_torch_dtype_int32());
  RowSort<1> sort{data<int64_t>(receivers), nullptr, count, atoms, 0.f,
                  nullptr, nullptr, nullptr, {}, data<int32_t>(starts), data<int32_t>(order)};
  const Tensor scratch = scratch_of(receivers, [&](Carver& carver) { take_sort(carver, sort); });
  launch_sort_edges(stream_of_device(receivers), sort);
  stack[0] = push_tensor(starts);
  stack[1] = push_tensor(order);
}

void boxed_attention_rows(StableIValue* stack, uint64_t, uint64_t) {
  const AttentionTensors tensors = pop_attention(stack);
  // Of the gradients alone, which check them: receivers and the rows of the senders.
  const Tensor unused[] = {pop_tensor(stack[9]), pop_tensor(stack[10]), pop_tensor(stack[11])};
  check_atoms(tensors.node, "node", 2);
  const GivenRows given = pop_rows(stack, tensors.node.size(0));
  const AttentionRows in = attention_of(tensors, given, pop_int(stack[12]));
  const EdgeGeometry geometry = geometry_of(tensors, given);
  const int64_t atoms = given.rows.num_atoms;
  const torch::stable::accelerator::DeviceGuard guard(tensors.node.get_device_index());
  const Tensor scalars = floats_like(tensors.node, {atoms, in.width});
  const Tensor vectors = floats_like(tensors.node, {atoms, 3, in.width});
  launch_attention_rows(stream_of_device(scalars), given.rows, geometry, in, data<float>(scalars),
                        data<float>(vectors));
  stack[0] = push_tensor(scalars);
  stack[1] = push_tensor(vectors);
}

void boxed_attention_rows_backward(StableIValue* stack, uint64_t, uint64_t) {
  const AttentionTensors tensors = pop_attention(stack);
  const Tensor receivers = pop_tensor(stack[9]), heard_starts = pop_tensor(stack[10]);
  const Tensor heard_order = pop_tensor(stack[11]);
  const Tensor from_scalars = pop_tensor(stack[12]), from_vectors = pop_tensor(stack[13]);
  check_atoms(tensors.node, "node", 2);
  const GivenRows given = pop_rows(stack, tensors.node.size(0));
  const AttentionRows in = attention_of(tensors, given, pop_int(stack[14]));
  const EdgeGeometry geometry = geometry_of(tensors, given);
  const int64_t atoms = given.rows.num_atoms, edges = pop_bool(stack[15]) ? given.count : 0;
  check_argument(receivers, "receivers", {given.count}, aoti_torch_dtype_int64(), given.senders);
  check_argument(heard_starts, "heard_starts", {atoms + 1}, aoti_torch_dtype_int32(), given.senders);
  check_argument(heard_order, "heard_order", {given.count}, aoti_torch_dtype_int32(), given.senders);
  check_floats(from_scalars, "the gradient of scalars", {atoms, in.width}, given.senders);
  check_floats(from_vectors, "the gradient of vectors", {atoms, 3, in.width}, given.senders);
  const EdgeRows heard{data<int32_t>(heard_starts), data<int32_t>(heard_order), atoms, data<int64_t>(receivers)};
  const torch::stable::accelerator::DeviceGuard guard(tensors.node.get_device_index());
  const Tensor results[] = {floats_like(tensors.node, {atoms, 5 * in.width}),
                            floats_like(tensors.node, {atoms, 3, in.width}), floats_like(tensors.node, {edges, 3}),
                            floats_like(tensors.node, {edges}), floats_like(tensors.node, {edges})};
  const auto of_edges = [&](const Tensor& tensor) { return edges > 0 ? data<float>(tensor) : nullptr; };
  const AttentionGradients out{data<float>(from_scalars), data<float>(from_vectors), data<float>(results[0]),
                               data<float>(results[1]),   of_edges(results[2]),      of_edges(results[3]),
                               of_edges(results[4])};
  launch_attention_gradient_rows(stream_of_device(receivers), given.rows, heard, given.count, geometry, in, out);
  for (int k = 0; k < 5; ++k) stack[k] = push_tensor(results[k]);
}

void boxed_edge_attention_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor envelope = pop_tensor(stack[3]), node = pop_tensor(stack[4]), filters = pop_tensor(stack[5]);
  const int64_t head_width = pop_int(stack[6]);
  check_atoms(node, "node", 2);
  check_atoms(filters, "filters", 2);
  const int64_t atoms = node.size(0), width = node.size(1) / 3;
  const int64_t filter_width = (filters.size(1) == 3 * width ? 3 : 2) * width;
  const GivenRows given = pop_rows(stack, atoms);
  check_edge_width(width, head_width);
  check_floats(node, "node", {atoms, 3 * width}, given.senders);
  check_floats(filters, "filters", {given.count, filter_width}, given.senders);
  const EdgeAttentionRows in{width, head_width, filter_width, data<float>(node), data<float>(filters)};
  const EdgeGeometry geometry{nullptr, envelope_of(envelope, given), nullptr};
  const torch::stable::accelerator::DeviceGuard guard(node.get_device_index());
  const Tensor messages = floats_like(node, {given.count, width}), scalars = floats_like(node, {atoms, width});
  launch_edge_attention_rows(stream_of_device(node), given.rows, geometry, in, data<float>(messages),
                             data<float>(scalars));
  stack[0] = push_tensor(messages);
  stack[1] = push_tensor(scalars);
}

void boxed_edge_vector_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor directions = pop_tensor(stack[3]), carried = pop_tensor(stack[4]), scales = pop_tensor(stack[5]);
  const Tensor mixed = pop_tensor(stack[6]), filters = pop_tensor(stack[7]), edges = pop_tensor(stack[8]);
  check_atoms(carried, "vectors", 3);
  check_atoms(filters, "filters", 2);
  const int64_t atoms = carried.size(0), width = carried.size(2);
  const bool changes = filters.size(1) == 3 * width;
  const int64_t filter_width = (changes ? 3 : 2) * width;
  const GivenRows given = pop_rows(stack, atoms);
  check_edge_width(width, width);
  check_floats(carried, "vectors", {atoms, 3, width}, given.senders);
  check_floats(scales, "scales", {given.count, 2 * width}, given.senders);
  check_floats(mixed, "mixed", {atoms, 3, (changes ? 5 : 3) * width}, given.senders);
  check_floats(filters, "filters", {given.count, filter_width}, given.senders);
  check_floats(edges, "edges", {given.count, width}, given.senders);
  const EdgeVectorRows in{width,
                          filter_width,
                          data<float>(carried),
                          data<float>(scales),
                          changes ? data<float>(mixed) : nullptr,
                          data<float>(filters),
                          data<float>(edges)};
  const EdgeGeometry geometry{directions_of(directions, given), nullptr, nullptr};
  const torch::stable::accelerator::DeviceGuard guard(carried.get_device_index());
  const Tensor vectors = floats_like(carried, {atoms, 3, width});
  const Tensor changed = floats_like(carried, {changes ? given.count : 0, width});
  launch_edge_vector_rows(stream_of_device(carried), given.rows, geometry, in, data<float>(vectors),
                          data<float>(changed));
  stack[0] = push_tensor(vectors);
  stack[1] = push_tensor(changed);
}

void boxed_tensor_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor places = pop_tensor(stack[3]), parts = pop_tensor(stack[4]), table = pop_tensor(stack[5]);
  check_atoms(parts, "parts", 3);
  const int64_t atoms = parts.size(0), width = parts.size(2);
  const GivenRows given = pop_rows(stack, atoms);
  check_edge_width(width, width);
  check_floats(parts, "parts", {atoms, 9, width}, given.senders);
  const TensorRows in{width, data<float>(parts), nullptr, nullptr, table_of(table, 3 * width, given)};
  const EdgeGeometry geometry{nullptr, nullptr, places_of(places, given)};
  const torch::stable::accelerator::DeviceGuard guard(parts.get_device_index());
  const Tensor result = floats_like(parts, {atoms, 9, width});
  launch_tensor_rows(stream_of_device(parts), given.rows, geometry, in, data<float>(result));
  stack[0] = push_tensor(result);
}

void boxed_first_tensor_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor directions = pop_tensor(stack[3]), places = pop_tensor(stack[4]), receiver = pop_tensor(stack[5]);
  const Tensor sender = pop_tensor(stack[6]), table = pop_tensor(stack[7]);
  check_atoms(receiver, "receiver", 2);
  const int64_t atoms = receiver.size(0), width = receiver.size(1);
  const GivenRows given = pop_rows(stack, atoms);
  check_edge_width(width, width);
  check_floats(receiver, "receiver", {atoms, width}, given.senders);
  check_floats(sender, "sender", {atoms, width}, given.senders);
  const TensorRows in{width, nullptr, data<float>(receiver), data<float>(sender), table_of(table, 3 * width, given)};
  const EdgeGeometry geometry{directions_of(directions, given), nullptr, places_of(places, given)};
  const torch::stable::accelerator::DeviceGuard guard(receiver.get_device_index());
  const Tensor result = floats_like(receiver, {atoms, 9, width});
  launch_tensor_rows(stream_of_device(receiver), given.rows, geometry, in, data<float>(result));
  stack[0] = push_tensor(result);
}

void boxed_scaled_tensors(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor parts = pop_tensor(stack[0]);
  stack[0] = push_tensor(launch_tensors(parts, parts, TensorFormula::kScaled));
}

void boxed_tensor_products(StableIValue* stack, uint64_t, uint64_t) {
  stack[0] = push_tensor(launch_tensors(pop_tensor(stack[0]), pop_tensor(stack[1]), TensorFormula::kProduct));
}

void boxed_tensor_squares(StableIValue* stack, uint64_t, uint64_t) {
  stack[0] = push_tensor(launch_tensors(pop_tensor(stack[0]), pop_tensor(stack[1]), TensorFormula::kSquare));
}

}  // namespace openmm_gnn::cuda
