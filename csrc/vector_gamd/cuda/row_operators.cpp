// Checks, memory, device and stream of the operators of ../pair_rows.h, between PyTorch's dispatcher and row_sums.cu.
#include "base/cuda/device_arguments.h"
#include "vector_gamd/cuda/row_messages.h"
#include "vector_gamd/cuda/row_sums.h"
#include "vector_gamd/network_arguments.h"

namespace openmm_gnn::cuda {

namespace {

template <typename Call>
PairRows checked_rows(const Call& call, const PairGraph& graph) {
  check_num_pairs(call.ends.count);
  return {call.given.template get<int32_t>(graph.starts, "starts", {call.in.num_atoms + 1}),
          call.given.template get<int32_t>(graph.entries, "entries", {2 * call.ends.count})};
}

void refuse_weights(bool weights) { check(!weights, "CUDA has no gradients of weights: use the plain form"); }

std::tuple<Tensor, Tensor> pair_rows_cuda(const Tensor& pairs, const Tensor& distances, double cutoff,
                                          int64_t num_atoms) {
  const CheckedArguments given(pairs, "pairs");
  const int64_t* ends = given.get<int64_t>(pairs, "pairs", {2, kAny});
  const int64_t count = pairs.size(1);
  check_num_pairs(count);
  check_num_atoms(num_atoms);
  const float* lengths = given.get<float>(distances, "distances", {count});
  const DeviceGuard guard(pairs.get_device_index());
  const Tensor starts = empty(pairs, {num_atoms + 1}, aoti_torch_dtype_int32());
  const Tensor entries = empty(pairs, {2 * count}, aoti_torch_dtype_int32());
  RowSort<2> sort{ends,    lengths, count, num_atoms, static_cast<float>(cutoff), nullptr,
                  nullptr, nullptr, {},    data<int32_t>(starts), data<int32_t>(entries)};
  const Tensor scratch = scratch_of(pairs, [&](Carver& carver) { take_sort(carver, sort); });
  launch_sort_rows(stream_of_device(pairs), sort);
  return {starts, entries};
}

std::tuple<Tensor, Tensor> vector_messages_cuda(const MessageArguments& from) {
  const MessageCall call(from, kRowThreads);
  const PairRows rows = checked_rows(call, from.graph);
  const DeviceGuard guard(from.value.get_device_index());
  const Tensor scalars = floats_like(from.value, {call.in.num_atoms, call.in.width});
  const Tensor vectors = floats_like(from.value, {call.in.num_atoms, 3, call.in.width});
  launch_row_messages(stream_of_device(from.value), rows, call.ends, call.in, data<float>(scalars),
                      data<float>(vectors));
  return {scalars, vectors};
}

std::array<Tensor, 8> vector_messages_backward_cuda(const MessageArguments& from, const Tensor& scalar_gradient,
                                                    const Tensor& vector_gradient, bool geometry, bool weights) {
  refuse_weights(weights);
  const MessageCall call(from, kRowThreads);
  const PairRows rows = checked_rows(call, from.graph);
  RowMessageGradients out = call.incoming(scalar_gradient, vector_gradient);
  const DeviceGuard guard(from.value.get_device_index());
  const auto make = [&](std::initializer_list<int64_t> sizes) { return floats_like(from.value, sizes); };
  const std::array<Tensor, 8> results = message_gradient_tensors(from, call, geometry, false, make);
  out.source = data<float>(results[0]);
  out.target = data<float>(results[1]);
  out.value = data<float>(results[2]);
  out.probe = or_null(results[3]);
  out.carried = or_null(results[4]);
  out.pair_vectors = or_null(results[7]);
  launch_row_message_gradients(stream_of_device(from.value), rows, call.ends, call.in, out);
  return results;
}

Tensor pair_strengths_cuda(const StrengthArguments& from) {
  const StrengthCall call(from, kRowThreads);
  checked_rows(call, from.graph);
  const DeviceGuard guard(from.total.get_device_index());
  const Tensor strengths = floats_like(from.total, {call.ends.count});
  launch_row_strengths(stream_of_device(from.total), call.ends, call.in, data<float>(strengths));
  return strengths;
}

std::array<Tensor, 7> pair_strengths_backward_cuda(const StrengthArguments& from, const Tensor& strength_gradient,
                                                   bool geometry, bool weights) {
  refuse_weights(weights);
  const StrengthCall call(from, kRowThreads);
  const PairRows rows = checked_rows(call, from.graph);
  RowStrengthGradients out = call.incoming(strength_gradient);
  const DeviceGuard guard(from.total.get_device_index());
  const auto make = [&](std::initializer_list<int64_t> sizes) { return floats_like(from.total, sizes); };
  const std::array<Tensor, 7> results = strength_gradient_tensors(from, call, geometry, false, make);
  out.total = data<float>(results[0]);
  out.left = data<float>(results[1]);
  out.probe = data<float>(results[2]);
  out.pair_vectors = or_null(results[6]);
  launch_row_strength_gradients(stream_of_device(from.total), rows, call.ends, call.in, out);
  return results;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(OPENMM_GNN_LIBRARY, OPENMM_GNN_CUDA, library) {
  implement<kPairRows, pair_rows_cuda>(library);
  implement<kVectorMessages, vector_messages_cuda>(library);
  implement<kVectorMessagesBackward, vector_messages_backward_cuda>(library);
  implement<kPairStrengths, pair_strengths_cuda>(library);
  implement<kPairStrengthsBackward, pair_strengths_backward_cuda>(library);
}

}  // namespace openmm_gnn::cuda
