// Checks, memory, device and stream of the operators of ../radial_pair.h and ../pair_rows.h, between PyTorch's dispatcher
// and the kernels.
#include "base/cuda/device_arguments.h"
#include "base/cuda/sort_rows.h"
#include "vector_gamd/cuda/pair_forces.h"
#include "vector_gamd/cuda/pair_sums.h"
#include "vector_gamd/network_arguments.h"
#include "vector_gamd/pair_arguments.h"

namespace openmm_gnn::cuda {

namespace {

// ---- radial_pair.h --------------------------------------------------------------------------------------------------

// Writes the sums of the pairs' forces, (N, 3), and their energy unless it is null.
template <class Pairs>
void add_pair_forces(const Tensor& pairs, const Pairs& source, int64_t num_atoms, float* forces, float* energy) {
  using Add = AddPairForces<Pairs>;
  FixedSums sums{};
  const Tensor scratch = scratch_of(pairs, [&](Carver& carver) {
    sums.forces = carver.take<int64_t>(3 * num_atoms);
    sums.energy = carver.take<int64_t>(1);
    sums.invalid = carver.take<int32_t>(1);
  });
  const StreamLauncher launcher = launcher_of(pairs);
  launcher.clear(sums.forces, static_cast<size_t>(3 * num_atoms) * sizeof(int64_t));
  launcher.clear(sums.energy, sizeof(int64_t));
  launcher.clear(sums.invalid, sizeof(int32_t));
  const int64_t count = pairs.size(1);
  launcher.launch(blocks_for(count, Add::kThreads * kPairsOfThread), Add{data<int64_t>(pairs), count, num_atoms, source, sums});
  launch_items(launcher, 3 * num_atoms + 1, ReadFixedSums{sums, 3 * num_atoms, forces, energy});
}

int64_t checked_count(const CheckedArguments& given, const Tensor& pairs, int64_t num_atoms) {
  given.get<int64_t>(pairs, "pairs", {2, kAny});
  check_num_pairs(pairs.size(1));
  check_num_atoms(num_atoms);
  return pairs.size(1);
}

Tensor pair_types_cuda(const Tensor& pairs, const Tensor& species, const Tensor& partners, int64_t num_species) {
  const CheckedArguments given(pairs, "pairs");
  const KindTables tables = kind_tables(given, species, partners, num_species);
  const int64_t count = checked_count(given, pairs, tables.num_atoms);
  const DeviceGuard guard(pairs.get_device_index());
  const Tensor types = empty(pairs, {count}, aoti_torch_dtype_int64());
  launch_items(launcher_of(pairs), count, KindsOfPairs{data<int64_t>(pairs), count, tables, data<int64_t>(types)});
  return types;
}

std::tuple<Tensor, Tensor> radial_pair_forces_cuda(const SplinedPairs& in, int64_t, int64_t num_atoms) {
  const CheckedArguments given(in.pairs, "pairs");
  checked_count(given, in.pairs, num_atoms);
  const SplineArrays arrays = spline_arrays(given, in);
  const DeviceGuard guard(in.pairs.get_device_index());
  const Tensor forces = floats_like(in.pairs, {num_atoms, 3}), energy = floats_like(in.pairs, {1});
  add_pair_forces(in.pairs, SplinePairs{arrays.splines, arrays.types, arrays.vectors, arrays.distances}, num_atoms,
                  data<float>(forces), data<float>(energy));
  return {forces, energy};
}

Tensor pair_force_sums_cuda(const Tensor& pair_forces, const Tensor& pairs, int64_t num_atoms) {
  const CheckedArguments given(pairs, "pairs");
  const int64_t count = checked_count(given, pairs, num_atoms);
  const GivenPairs source{given.get<float>(pair_forces, "pair_forces", {count, 3})};
  const DeviceGuard guard(pairs.get_device_index());
  const Tensor forces = floats_like(pairs, {num_atoms, 3});
  add_pair_forces(pairs, source, num_atoms, data<float>(forces), nullptr);
  return forces;
}

// ---- pair_rows.h ----------------------------------------------------------------------------------------------------

template <typename Call>
PairRows checked_rows(const Call& call, const PairGraph& graph) {
  check_num_pairs(call.ends.count);
  return {call.given.template get<int32_t>(graph.starts, "starts", {call.in.num_atoms + 1}),
          call.given.template get<int32_t>(graph.entries, "entries", {2 * call.ends.count})};
}

// Calls launch(std::bool_constant) with whether the network has vector features.
template <class Launch>
void with_probe(const RowMessages& in, const Launch& launch) {
  in.probe != nullptr ? launch(std::true_type()) : launch(std::false_type());
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
                  nullptr, nullptr, {},    data<int32_t>(starts), data<int32_t>(entries), ends + count};
  const Tensor scratch = scratch_of(pairs, [&](Carver& carver) { take_sort(carver, sort); });
  sort_rows(launcher_of(pairs), sort);
  return {starts, entries};
}

std::tuple<Tensor, Tensor> vector_messages_cuda(const MessageArguments& from) {
  const MessageCall call(from, kPairThreads);
  const PairRows rows = checked_rows(call, from.graph);
  const DeviceGuard guard(from.value.get_device_index());
  const Tensor scalars = floats_like(from.value, {call.in.num_atoms, call.in.width});
  const Tensor vectors = floats_like(from.value, {call.in.num_atoms, 3, call.in.width});
  with_probe(call.in, [&](auto probe) {
    using Sum = SumRowMessages<probe(), PairEnds>;
    launcher_of(from.value).launch(row_blocks(call.in.num_atoms, call.in.width),
                                   Sum{rows, call.ends, call.in, data<float>(scalars), data<float>(vectors)});
  });
  return {scalars, vectors};
}

std::array<Tensor, 8> vector_messages_backward_cuda(const MessageArguments& from, const Tensor& scalar_gradient,
                                                    const Tensor& vector_gradient, bool geometry, bool weights) {
  refuse_weights(weights);
  const MessageCall call(from, kPairThreads);
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
  with_probe(call.in, [&](auto probe) {
    const StreamLauncher launcher = launcher_of(from.value);
    launcher.launch(row_blocks(call.in.num_atoms, call.in.width),
                    SumRowMessageGradients<probe(), PairEnds>{rows, call.ends, call.in, out});
    if (out.pair_vectors == nullptr) return;
    launcher.launch(pair_blocks(call.ends.count, call.in.width),
                    PairMessageGradientsKernel<probe(), PairEnds>{call.ends, call.in, out, false});
  });
  return results;
}

Tensor pair_strengths_cuda(const StrengthArguments& from) {
  const StrengthCall call(from, kPairThreads);
  checked_rows(call, from.graph);
  const DeviceGuard guard(from.total.get_device_index());
  const Tensor strengths = floats_like(from.total, {call.ends.count});
  launcher_of(from.total).launch(pair_blocks(call.ends.count, call.in.width),
                                 PairStrengthsKernel<PairEnds>{call.ends, call.in, data<float>(strengths)});
  return strengths;
}

std::array<Tensor, 7> pair_strengths_backward_cuda(const StrengthArguments& from, const Tensor& strength_gradient,
                                                   bool geometry, bool weights) {
  refuse_weights(weights);
  const StrengthCall call(from, kPairThreads);
  const PairRows rows = checked_rows(call, from.graph);
  RowStrengthGradients out = call.incoming(strength_gradient);
  const DeviceGuard guard(from.total.get_device_index());
  const auto make = [&](std::initializer_list<int64_t> sizes) { return floats_like(from.total, sizes); };
  const std::array<Tensor, 7> results = strength_gradient_tensors(from, call, geometry, false, make);
  out.total = data<float>(results[0]);
  out.left = data<float>(results[1]);
  out.probe = data<float>(results[2]);
  out.pair_vectors = or_null(results[6]);
  const StreamLauncher launcher = launcher_of(from.total);
  launcher.launch(row_blocks(call.in.num_atoms, call.in.width),
                  SumRowStrengthGradients<PairEnds>{rows, call.ends, call.in, out});
  if (out.pair_vectors != nullptr) {
    launcher.launch(pair_blocks(call.ends.count, call.in.width),
                    PairStrengthGradientsKernel<PairEnds>{call.ends, call.in, out, false});
  }
  return results;
}

}  // namespace

OPENMM_GNN_CUDA_OPERATORS(library) {
  implement<kPairTypes, pair_types_cuda>(library);
  implement<kRadialPairForces, radial_pair_forces_cuda>(library);
  implement<kPairForceSums, pair_force_sums_cuda>(library);
  implement<kPairRows, pair_rows_cuda>(library);
  implement<kVectorMessages, vector_messages_cuda>(library);
  implement<kVectorMessagesBackward, vector_messages_backward_cuda>(library);
  implement<kPairStrengths, pair_strengths_cuda>(library);
  implement<kPairStrengthsBackward, pair_strengths_backward_cuda>(library);
}

}  // namespace openmm_gnn::cuda
