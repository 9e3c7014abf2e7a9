// Checks, memory, device and stream of the operators over pairs, between PyTorch's dispatcher and pair_forces.cu.
#include "base/cuda/device_arguments.h"
#include "vector_gamd/cuda/pair_launches.h"
#include "vector_gamd/pair_arguments.h"

namespace openmm_gnn::cuda {

namespace {

Tensor take_sums(const Tensor& like, int64_t num_atoms, FixedSums& sums) {
  return scratch_of(like, [&](Carver& carver) {
    sums.forces = carver.take<int64_t>(3 * num_atoms);
    sums.energy = carver.take<int64_t>(1);
    sums.invalid = carver.take<int32_t>(1);
  });
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
  launch_kinds_of_pairs(stream_of_device(pairs), data<int64_t>(pairs), count, tables, data<int64_t>(types));
  return types;
}

std::tuple<Tensor, Tensor> radial_pair_forces_cuda(const SplinedPairs& in, int64_t, int64_t num_atoms) {
  const CheckedArguments given(in.pairs, "pairs");
  const int64_t count = checked_count(given, in.pairs, num_atoms);
  const SplineArrays arrays = spline_arrays(given, in);
  const DeviceGuard guard(in.pairs.get_device_index());
  FixedSums sums{};
  const Tensor scratch = take_sums(in.pairs, num_atoms, sums);
  const Tensor forces = floats_like(in.pairs, {num_atoms, 3}), energy = floats_like(in.pairs, {1});
  launch_spline_forces(stream_of_device(in.pairs), data<int64_t>(in.pairs), count, num_atoms,
                       SplinePairs{arrays.splines, arrays.types, arrays.vectors, arrays.distances}, sums,
                       data<float>(forces), data<float>(energy));
  return {forces, energy};
}

Tensor pair_force_sums_cuda(const Tensor& pair_forces, const Tensor& pairs, int64_t num_atoms) {
  const CheckedArguments given(pairs, "pairs");
  const int64_t count = checked_count(given, pairs, num_atoms);
  const GivenPairs source{given.get<float>(pair_forces, "pair_forces", {count, 3})};
  const DeviceGuard guard(pairs.get_device_index());
  FixedSums sums{};
  const Tensor scratch = take_sums(pairs, num_atoms, sums);
  const Tensor forces = floats_like(pairs, {num_atoms, 3});
  launch_given_forces(stream_of_device(pairs), data<int64_t>(pairs), count, num_atoms, source, sums,
                      data<float>(forces));
  return forces;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(OPENMM_GNN_LIBRARY, OPENMM_GNN_CUDA, library) {
  implement<kPairTypes, pair_types_cuda>(library);
  implement<kRadialPairForces, radial_pair_forces_cuda>(library);
  implement<kPairForceSums, pair_force_sums_cuda>(library);
}

}  // namespace openmm_gnn::cuda
