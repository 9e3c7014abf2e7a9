// Checks, memory, device and stream of the operators of ../messages.h, between PyTorch's dispatcher and the kernels.
#include <torch/csrc/stable/ops.h>

#include "base/cuda/device_arguments.h"
#include "base/cuda/sort_rows.h"
#include "encoders/arguments.h"
#include "encoders/cuda/attention_gradients.h"
#include "encoders/cuda/tensor_rows.h"

namespace openmm_gnn::cuda {

namespace {

void check_width(int64_t width, int64_t head_width) {
  check(fits_edge_rows(width, head_width), "features of " + std::to_string(width) + " channels in heads of " +
                                               std::to_string(head_width) + ": give a multiple of 16, at most " +
                                               std::to_string(kEdgeThreads) + ", and heads that divide it");
}

// The edges of an operator's atoms, and their rows.
struct GivenEdges {
  CheckedArguments given;
  EncoderEdges edges;
  const Tensor& rows;

  GivenEdges(const EdgeArguments& in, int64_t receiving)
      : given(in.index, "edge_index"), edges(checked_edges(given, in, receiving)), rows(in.rows) {}

  // Of the receivers; or those of the senders, which come behind.
  EdgeRows rows_of(int64_t num_atoms, bool senders = false) const {
    const int64_t length = num_atoms + 1 + edges.count;
    const int32_t* starts = given.get<int32_t>(rows, "rows", {kAny}) + (senders ? length : 0);
    check(rows.size(0) == 2 * length || (rows.size(0) == length && !senders),
          "rows has shape " + shape_text(rows) + ": expected (" + std::to_string(senders ? 2 * length : length) +
              "), of edge_rows for " + std::to_string(num_atoms) + " atoms");
    return {starts, starts + num_atoms + 1, num_atoms, senders ? edges.receivers : edges.senders};
  }
};

Tensor edge_rows_cuda(const Tensor& index, const Tensor& distances, double cutoff, int64_t receiving,
                      int64_t num_atoms, bool senders) {
  const CheckedArguments given(index, "edge_index");
  const int64_t count = size_of(index, "edge_index", 1, 2), length = num_atoms + 1 + count;
  const int64_t* atoms = given.get<int64_t>(index, "edge_index", {2, count});
  const float* lengths = given.get<float>(distances, "distances", {count});
  check(count < (int64_t(1) << 30), std::to_string(count) + " edges: give fewer than 2^30");
  check(receiving == 0 || receiving == 1, "receiving is " + std::to_string(receiving) + ": give a row of edge_index");
  check_num_atoms(num_atoms);
  const DeviceGuard guard(index.get_device_index());
  const Tensor rows = empty(index, {senders ? 2 * length : length}, aoti_torch_dtype_int32());
  for (int64_t row = 0; row <= (senders ? 1 : 0); ++row) {
    int32_t* starts = data<int32_t>(rows) + row * length;
    const int64_t* ends = atoms + (row == 0 ? receiving : 1 - receiving) * count;
    const int64_t* others = atoms + (row == 0 ? 1 - receiving : receiving) * count;
    RowSort<1> sort{ends, lengths, count, num_atoms, static_cast<float>(cutoff), nullptr, nullptr, nullptr, {}, starts,
                    starts + num_atoms + 1, others};
    const Tensor scratch = scratch_of(index, [&](Carver& carver) { take_sort(carver, sort); });
    sort_rows(launcher_of(index), sort);
  }
  return rows;
}

std::tuple<Tensor, Tensor> attention_messages_cuda(const AttentionArguments& arguments) {
  const GivenEdges call(arguments.edges, 1);
  const AttentionInputs in = inputs_of(call.given, arguments);
  check_width(in.width, in.head_width);
  const Tensor& like = arguments.node;
  const int64_t atoms = like.size(0);
  const EdgeRows rows = call.rows_of(atoms);
  const DeviceGuard guard(like.get_device_index());
  const Tensor scalars = floats_like(like, {atoms, in.width}), vectors = floats_like(like, {atoms, 3, in.width});
  launcher_of(like).launch(atoms,
                           AttentionRowsKernel{rows, call.edges, in, data<float>(scalars), data<float>(vectors)});
  return {scalars, vectors};
}

std::array<Tensor, 6> attention_messages_backward_cuda(const AttentionArguments& arguments, const Tensor& from_scalars,
                                                       const Tensor& from_vectors, bool geometry, bool filters) {
  check(!filters, "attention_messages has no gradients of weights on CUDA: call encoder.network.use_compiled(False)");
  const GivenEdges call(arguments.edges, 1);
  const AttentionInputs in = inputs_of(call.given, arguments);
  check_width(in.width, in.head_width);
  const Tensor& like = arguments.node;
  const int64_t atoms = like.size(0), edges = geometry ? call.edges.count : 0;
  const EdgeRows received = call.rows_of(atoms), sent = call.rows_of(atoms, true);
  const DeviceGuard guard(like.get_device_index());
  const std::array<Tensor, 6> results{floats_like(like, {atoms, 5 * in.width}), floats_like(like, {atoms, 3, in.width}),
                                      floats_like(like, {0, 2, 4 * in.width}),  floats_like(like, {edges, 3}),
                                      floats_like(like, {edges}),               floats_like(like, {edges})};
  const auto of_edges = [&](const Tensor& tensor) { return edges > 0 ? data<float>(tensor) : nullptr; };
  const AttentionGradients out{call.given.get<float>(from_scalars, "the gradient of scalars", {atoms, in.width}),
                               call.given.get<float>(from_vectors, "the gradient of vectors", {atoms, 3, in.width}),
                               data<float>(results[0]),
                               data<float>(results[1]),
                               nullptr,
                               of_edges(results[3]),
                               of_edges(results[4]),
                               of_edges(results[5])};
  const StreamLauncher launcher = launcher_of(like);
  if (edges > 0) {  // those in no row have no gradient
    const size_t bytes = static_cast<size_t>(edges) * sizeof(float);
    launcher.clear(out.directions, 3 * bytes);
    launcher.clear(out.envelope, bytes);
    launcher.clear(out.places, bytes);
  }
  launcher.launch(atoms, AttentionReceiverGradients{received, call.edges, in, out});
  launcher.launch(atoms, AttentionSenderGradients{sent, call.edges, in, out});
  return results;
}

// x W^T + b of PyTorch, in float32 also where autocast computes it in sixteen bits.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  std::array<StableIValue, 5> stack{from(x), from(weight), from(std::optional<Tensor>(bias))};
  TORCH_ERROR_CODE_CHECK(aoti_torch_call_dispatcher("aten::linear", "", stack.data()));
  const Tensor result = to<Tensor>(stack[0]);
  if (is_float32(result)) return result;
  stack = {from(result), from(c10::ScalarType::Float), from(false), from(false), from(std::nullopt)};
  TORCH_ERROR_CODE_CHECK(aoti_torch_call_dispatcher("aten::to", "dtype", stack.data()));
  return to<Tensor>(stack[0]);
}

std::tuple<Tensor, Tensor, Tensor> edge_layer_cuda(const EdgeLayerArguments& arguments) {
  const GivenEdges call(arguments.edges, 1);
  EdgeLayerInputs in = edge_layer_inputs(call.given, arguments, call.edges.count);
  check_width(in.width, in.head_width);
  const Tensor& like = arguments.node;
  const int64_t atoms = like.size(0), count = call.edges.count;
  const EdgeRows rows = call.rows_of(atoms);
  const DeviceGuard guard(like.get_device_index());
  const StreamLauncher launcher = launcher_of(like);
  const Tensor filters = linear(arguments.features, arguments.filter_weight, arguments.filter_bias);
  in.filters = data<float>(filters);
  const Tensor messages = floats_like(like, {count, in.width}), scalars = floats_like(like, {atoms, in.width});
  launcher.launch(atoms,
                  EdgeAttentionRowsKernel{rows, call.edges, in, data<float>(messages), data<float>(scalars)});
  const Tensor scales = linear(messages, arguments.spread_weight, arguments.spread_bias);
  in.scales = data<float>(scales);
  const Tensor vectors = floats_like(like, {atoms, 3, in.width});
  const Tensor changed = floats_like(like, {in.mixed != nullptr ? count : 0, in.width});
  launcher.launch(atoms, EdgeVectorRowsKernel{rows, call.edges, in, data<float>(vectors), data<float>(changed)});
  return {scalars, vectors, changed};
}

// Of the senders' tensors, or of those that directions make.
template <class Arguments>
Tensor tensor_sums_cuda(const Arguments& arguments) {
  const GivenEdges call(arguments.edges, 0);
  const TensorInputs in = inputs_of(call.given, arguments);
  check_width(in.width, in.width);
  const int64_t atoms = arguments.num_atoms();
  const EdgeRows rows = call.rows_of(atoms);
  const DeviceGuard guard(arguments.table.get_device_index());
  const Tensor result = floats_like(arguments.table, {atoms, 9, in.width});
  using Kernel = TensorRowsKernel<std::is_same_v<Arguments, FirstTensorArguments>>;
  launcher_of(result).launch(atoms, Kernel{rows, call.edges, in, data<float>(result)});
  return result;
}

template <TensorFormula kFormula>
Tensor tensors_of_atoms_cuda(const Tensor& first, const Tensor& second, int64_t) {
  const CheckedArguments given(first, "parts");
  const int64_t width = size_of(first, "parts", 2, 3), atoms = first.size(0);
  const float* parts[] = {given.get<float>(first, "parts", {atoms, 9, width}),
                          given.get<float>(second, "parts", {atoms, 9, width})};
  const DeviceGuard guard(first.get_device_index());
  const Tensor result = floats_like(first, {atoms, 9, width});
  launch_items(launcher_of(first), atoms * width,
               TensorAtoms<kFormula>{width, parts[0], parts[1], data<float>(result)});
  return result;
}

Tensor scaled_tensors_cuda(const Tensor& parts, int64_t) {
  return tensors_of_atoms_cuda<TensorFormula::kScaled>(parts, parts, 0);
}

Tensor tabulated_filters_cuda(const Tensor& places, const Tensor& table, int64_t) {
  const CheckedArguments given(places, "places");
  const int64_t count = size_of(places, "places", 0, 1);
  const FilterTable filters = filter_table(given, table, size_of(table, "a filter table", 2, 3));
  const DeviceGuard guard(places.get_device_index());
  const Tensor result = floats_like(places, {count, filters.channels});
  launch_items(launcher_of(places), count * filters.channels,
               Filters{given.get<double>(places, "places", {count}), filters, data<float>(result)});
  return result;
}

}  // namespace

OPENMM_GNN_CUDA_OPERATORS(library) {
  implement<kEdgeRows, edge_rows_cuda>(library);
  implement<kAttentionMessages, attention_messages_cuda>(library);
  implement<kAttentionMessagesBackward, attention_messages_backward_cuda>(library);
  implement<kEdgeLayer, edge_layer_cuda>(library);
  implement<kTensorMessages, tensor_sums_cuda<TensorArguments>>(library);
  implement<kFirstTensors, tensor_sums_cuda<FirstTensorArguments>>(library);
  implement<kScaledTensors, scaled_tensors_cuda>(library);
  implement<kTensorProducts, tensors_of_atoms_cuda<TensorFormula::kProduct>>(library);
  implement<kTensorSquares, tensors_of_atoms_cuda<TensorFormula::kSquare>>(library);
  implement<kTabulatedFilters, tabulated_filters_cuda>(library);
}

}  // namespace openmm_gnn::cuda
