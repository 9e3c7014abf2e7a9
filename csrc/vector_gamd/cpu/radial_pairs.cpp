// Forces between pairs that depend on species and distance alone, and the types of pairs: plain loops over pairs.
#include <algorithm>
#include <vector>

#include "base/cpu/sums.h"
#include "vector_gamd/pair_arguments.h"

namespace openmm_gnn {

namespace {

using Arrays = std::vector<float*>;

struct Pairs {
  int64_t count;
  const int64_t *i, *j;
};

// A negative atom is padding, in both places.
Pairs checked_pairs(const CheckedArguments& given, const Tensor& pairs, int64_t num_atoms) {
  const int64_t* atoms = given.get<int64_t>(pairs, "pairs", {2, kAny});
  const int64_t count = pairs.size(1);
  check_num_atoms(num_atoms);
  for (int64_t k = 0; k < count; ++k) {
    const int64_t i = atoms[k], j = atoms[count + k];
    if (i >= num_atoms || j >= num_atoms || (i < 0) != (j < 0)) {
      const int64_t atom = i >= num_atoms ? i : j >= num_atoms ? j : std::min(i, j);
      fail("pair " + std::to_string(k) + " holds atom " + std::to_string(atom) + ": there are " +
           std::to_string(num_atoms) + ", and padding is -1 in both places");
    }
  }
  return {count, atoms, atoms + count};
}

Tensor pair_types_cpu(const Tensor& pairs, const Tensor& species, const Tensor& partners, int64_t num_species) {
  const CheckedArguments given(pairs, "pairs");
  const KindTables tables = kind_tables(given, species, partners, num_species);
  const Pairs list = checked_pairs(given, pairs, tables.num_atoms);
  check_below(tables.species, tables.num_atoms, num_species, "the species of atom");
  const Tensor result = empty(pairs, {list.count}, aoti_torch_dtype_int64());
  int64_t* types = data<int64_t>(result);
  for (int64_t k = 0; k < list.count; ++k) types[k] = pair_kind(tables, list.i[k], list.j[k]);
  return result;
}

std::tuple<Tensor, Tensor> radial_pair_forces_cpu(const SplinedPairs& in, int64_t num_threads, int64_t num_atoms) {
  const CheckedArguments given(in.pairs, "pairs");
  const Pairs list = checked_pairs(given, in.pairs, num_atoms);
  const SplineArrays arrays = spline_arrays(given, in);
  const PairSplines& splines = arrays.splines;
  Sums sums;
  const Tensor forces = sums.add(in.table, {num_atoms, 3}), total = sums.add(in.table, {1});
  sums.run(num_threads, list.count, [&](int64_t begin, int64_t end, const Arrays& out) {
    double energy = 0;
    for (int64_t k = begin; k < end; ++k) {
      const float distance = arrays.distances[k];
      if (list.i[k] < 0 || !(distance < splines.cutoff)) continue;
      const int64_t type = arrays.types[k];
      if (type < 0 || type >= splines.types) {
        fail("pair " + std::to_string(k) + " is of type " + std::to_string(type) + ": the table has " +
             std::to_string(splines.types));
      }
      const PairEnergy found = pair_energy(splines, type, distance);
      energy += found.energy;
      for (int d = 0; d < 3; ++d) {
        const float force = found.strength * arrays.vectors[3 * k + d];
        out[0][3 * list.i[k] + d] += force;
        out[0][3 * list.j[k] + d] -= force;
      }
    }
    out[1][0] += static_cast<float>(energy);
  });
  return {forces, total};
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kPairTypes, pair_types_cpu>(library);
  implement<kRadialPairForces, radial_pair_forces_cpu>(library);
  define<kPairForceSums>(library);
}

}  // namespace openmm_gnn
