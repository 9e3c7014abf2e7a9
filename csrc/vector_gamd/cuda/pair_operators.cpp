// Checks, memory, device and stream of the operators over pairs, between PyTorch's dispatcher and pair_forces.cu.
#include <torch/csrc/stable/accelerator.h>

#include "base/cuda/boxed_operators.h"
#include "base/cuda/device_arguments.h"
#include "vector_gamd/cuda/pair_launches.h"

namespace openmm_gnn::cuda {

namespace {

void check_num_atoms(int64_t num_atoms) {
  check(num_atoms >= 0 && num_atoms < (int64_t(1) << 30),
        "num_atoms is " + std::to_string(num_atoms) + ": give 0 to 2^30 - 1");
}

Tensor take_sums(const Tensor& like, int64_t num_atoms, FixedSums& sums) {
  return scratch_of(like, [&](Carver& carver) {
    sums.forces = carver.take<int64_t>(3 * num_atoms);
    sums.energy = carver.take<int64_t>(1);
    sums.invalid = carver.take<int32_t>(1);
  });
}

}  // namespace

void boxed_pair_types(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), species = pop_tensor(stack[1]), partners = pop_tensor(stack[2]);
  const int64_t num_species = pop_int(stack[3]), count = pairs.size(1);
  check_pairs(pairs);
  check(species.dim() == 1, "species has shape " + shape_text(species) + ": give (number of atoms,)");
  const int64_t atoms = species.size(0);
  check_argument(species, "species", {atoms}, aoti_torch_dtype_int64(), pairs);
  check_argument(partners, "partners", {-1, atoms, -1}, aoti_torch_dtype_int64(), pairs);
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const Tensor types = empty(pairs, {count}, aoti_torch_dtype_int64());
  const KindTables tables{atoms, partners.size(0), partners.size(2), num_species * (num_species + 1) / 2,
                          data<int64_t>(species), data<int64_t>(partners)};
  launch_kinds_of_pairs(stream_of_device(pairs), data<int64_t>(pairs), count, tables, data<int64_t>(types));
  stack[0] = push_tensor(types);
}

// pairs, types, vectors, distances, table, start, cutoff, the number of threads of a CPU, num_atoms.
void boxed_radial_pair_forces(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), types = pop_tensor(stack[1]), vectors = pop_tensor(stack[2]);
  const Tensor distances = pop_tensor(stack[3]), table = pop_tensor(stack[4]);
  const float start = static_cast<float>(pop_float(stack[5])), cutoff = static_cast<float>(pop_float(stack[6]));
  const int64_t atoms = pop_int(stack[8]);
  check_pairs(pairs);
  check_num_atoms(atoms);
  const int64_t count = pairs.size(1);
  check_argument(types, "types", {count}, aoti_torch_dtype_int64(), pairs);
  check_floats(vectors, "vectors", {count, 3}, pairs);
  check_floats(distances, "distances", {count}, pairs);
  check_floats(table, "table", {-1, -1}, pairs);
  check(table.size(1) >= 4 && start < cutoff, "a table of splines needs 4 knots and start below cutoff");
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const PairSplines splines{data<float>(table), table.size(0), table.size(1), start, cutoff,
                            static_cast<float>(table.size(1) - 3) / (cutoff - start)};
  const SplinePairs source{splines, data<int64_t>(types), data<float>(vectors), data<float>(distances)};
  FixedSums sums{};
  const Tensor scratch = take_sums(pairs, atoms, sums);
  const Tensor forces = floats_like(pairs, {atoms, 3}), energy = floats_like(pairs, {1});
  launch_spline_forces(stream_of_device(pairs), data<int64_t>(pairs), count, atoms, source, sums, data<float>(forces),
                       data<float>(energy));
  stack[0] = push_tensor(forces);
  stack[1] = push_tensor(energy);
}

void boxed_pair_force_sums(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pair_forces = pop_tensor(stack[0]), pairs = pop_tensor(stack[1]);
  const int64_t atoms = pop_int(stack[2]);
  check_pairs(pairs);
  check_num_atoms(atoms);
  const int64_t count = pairs.size(1);
  check_floats(pair_forces, "pair_forces", {count, 3}, pairs);
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  FixedSums sums{};
  const Tensor scratch = take_sums(pairs, atoms, sums);
  const Tensor forces = floats_like(pairs, {atoms, 3});
  launch_given_forces(stream_of_device(pairs), data<int64_t>(pairs), count, atoms,
                      GivenPairs{data<float>(pair_forces)}, sums, data<float>(forces));
  stack[0] = push_tensor(forces);
}

}  // namespace openmm_gnn::cuda
