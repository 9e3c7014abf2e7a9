#include <cstring>
#include <vector>

#include "base/cpu/sums.h"
#include "vector_gamd/cpu/vector_network.h"
#include "vector_gamd/network_arguments.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kMostChannels = int64_t(1) << 20;  // there is no limit but memory

void check_pairs(const PairEnds& ends, int64_t num_atoms, int64_t num_types) {
  for (int64_t k = 0; k < ends.count; ++k) {
    const int64_t i = ends.i(k), j = ends.j(k), type = ends.types[k];
    if (i >= 0 && (i >= num_atoms || j < 0 || j >= num_atoms || type < 0 || type >= num_types)) {
      fail("pair " + std::to_string(k) + " is (" + std::to_string(i) + ", " + std::to_string(j) + ") of type " +
           std::to_string(type) + ": there are " + std::to_string(num_atoms) + " atoms and " +
           std::to_string(num_types) + " types");
    }
  }
}

template <typename Call, typename Arguments>
Call checked(const Arguments& from) {
  const Call call(from, kMostChannels);
  check_pairs(call.ends, call.in.num_atoms, from.table.size(0));
  return call;
}

std::tuple<Tensor, Tensor> pair_rows_cpu(const Tensor& pairs, const Tensor&, double, int64_t) {
  const Tensor none = empty(pairs, {0}, aoti_torch_dtype_int32());
  return {none, empty(pairs, {0}, aoti_torch_dtype_int32())};
}

std::tuple<Tensor, Tensor> vector_messages_cpu(const MessageArguments& from) {
  const MessageCall call = checked<MessageCall>(from);
  Sums sums;
  const Tensor scalars = sums.add(from.value, {call.in.num_atoms, call.in.width});
  const Tensor vectors = sums.add(from.value, {call.in.num_atoms, 3, call.in.width});
  sums.run(from.num_threads, call.ends.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    vector_network_kernels().messages(call.ends, begin, end, call.in, out[0], out[1]);
  });
  return {scalars, vectors};
}

std::array<Tensor, 8> vector_messages_backward_cpu(const MessageArguments& from, const Tensor& scalar_gradient,
                                                   const Tensor& vector_gradient, bool geometry, bool weights) {
  const MessageCall call = checked<MessageCall>(from);
  const RowMessageGradients incoming = call.incoming(scalar_gradient, vector_gradient);
  Sums sums;
  const auto make = [&](std::initializer_list<int64_t> sizes) { return sums.add(from.value, sizes); };
  const std::array<Tensor, 8> results = message_gradient_tensors(from, call, geometry, weights, make);
  sums.run(from.num_threads, call.ends.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const RowMessageGradients gradients{incoming.scalars, incoming.vectors, out[0], out[1], out[2], out[3], out[4],
                                        geometry ? out[7] : nullptr, weights ? out[5] : nullptr,
                                        weights ? out[6] : nullptr};
    vector_network_kernels().message_gradients(call.ends, begin, end, call.in, gradients);
  });
  return results;
}

Tensor pair_strengths_cpu(const StrengthArguments& from) {
  const StrengthCall call = checked<StrengthCall>(from);
  const Tensor result = empty(from.total, {call.ends.count}, aoti_torch_dtype_float32());
  float* strengths = data<float>(result);
  if (call.ends.count > 0) std::memset(strengths, 0, sizeof(float) * static_cast<size_t>(call.ends.count));
  for_pairs(from.num_threads, call.ends.count, [&](int64_t begin, int64_t end) {
    vector_network_kernels().strengths(call.ends, begin, end, call.in, strengths);
  });
  return result;
}

std::array<Tensor, 7> pair_strengths_backward_cpu(const StrengthArguments& from, const Tensor& strength_gradient,
                                                  bool geometry, bool weights) {
  const StrengthCall call = checked<StrengthCall>(from);
  const RowStrengthGradients incoming = call.incoming(strength_gradient);
  Sums sums;
  const auto make = [&](std::initializer_list<int64_t> sizes) { return sums.add(from.total, sizes); };
  const std::array<Tensor, 7> results = strength_gradient_tensors(from, call, geometry, weights, make);
  sums.run(from.num_threads, call.ends.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const RowStrengthGradients gradients{incoming.strengths, out[0], out[1], out[2], geometry ? out[6] : nullptr,
                                         weights ? out[3] : nullptr, weights ? out[4] : nullptr,
                                         weights ? out[5] : nullptr};
    vector_network_kernels().strength_gradients(call.ends, begin, end, call.in, gradients);
  });
  return results;
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kPairRows, pair_rows_cpu>(library);
  implement<kVectorMessages, vector_messages_cpu>(library);
  implement<kVectorMessagesBackward, vector_messages_backward_cpu>(library);
  implement<kPairStrengths, pair_strengths_cpu>(library);
  implement<kPairStrengthsBackward, pair_strengths_backward_cpu>(library);
}

}  // namespace openmm_gnn
