// Forces between pairs that depend on species and distance alone, and the types of pairs: plain loops over pairs.
#include <vector>

#include "vector_gamd/radial_pair.h"
#include "base/cpu/operators.h"
#include "base/cpu/sums.h"

namespace openmm_gnn {

namespace {

struct Pairs {
  int64_t count;
  const int64_t *i, *j;
};

Pairs checked_pairs(const Tensor& pairs, int64_t num_atoms) {
  check(pairs.dim() == 2 && pairs.size(0) == 2 && dtype_of(pairs) == aoti_torch_dtype_int64() && pairs.is_contiguous(),
        "pairs has shape " + shape_text(pairs) + ": give (2, number of pairs), int64 and contiguous");
  const int64_t count = pairs.size(1);
  const int64_t* atoms = data<int64_t>(pairs);
  for (int64_t k = 0; k < 2 * count; ++k) {
    if (atoms[k] >= num_atoms) {
      fail("pair " + std::to_string(k % count) + " holds atom " + std::to_string(atoms[k]) + ": there are " +
           std::to_string(num_atoms));
    }
  }
  return {count, atoms, atoms + count};
}

}  // namespace

Tensor pair_types_cpu(const Tensor& pairs, const Tensor& species, const Tensor& partners, int64_t num_species) {
  check(species.dim() == 1 && dtype_of(species) == aoti_torch_dtype_int64() && species.is_contiguous(),
        "species has shape " + shape_text(species) + ": give (number of atoms,), int64");
  const int64_t num_atoms = species.size(0);
  check(partners.dim() == 3 && partners.size(1) == num_atoms && dtype_of(partners) == aoti_torch_dtype_int64() &&
            partners.is_contiguous(),
        "partners has shape " + shape_text(partners) + ": give (levels, number of atoms, most partners), int64");
  const Pairs list = checked_pairs(pairs, num_atoms);
  const Tensor result = empty(pairs, {list.count}, aoti_torch_dtype_int64());
  const KindTables tables{num_atoms, partners.size(0), partners.size(2), num_species * (num_species + 1) / 2,
                          data<int64_t>(species), data<int64_t>(partners)};
  int64_t* types = data<int64_t>(result);
  for (int64_t k = 0; k < list.count; ++k) types[k] = pair_kind(tables, list.i[k], list.j[k]);
  return result;
}

std::vector<Tensor> radial_pair_forces_cpu(const PairInputs& pairs, const Tensor& table, int64_t num_atoms) {
  const Pairs list = checked_pairs(pairs.pairs, num_atoms);
  check(table.dim() == 2 && table.size(1) >= 4 && is_float32(table) && table.is_contiguous(),
        "table has shape " + shape_text(table) + ": give (number of types, at least 4 knots), float32");
  check(pairs.types.size(0) == list.count && dtype_of(pairs.types) == aoti_torch_dtype_int64() &&
            pairs.vectors.size(0) == list.count && is_float32(pairs.vectors) && pairs.vectors.is_contiguous() &&
            pairs.distances.size(0) == list.count && is_float32(pairs.distances),
        "types, vectors and distances must belong to the pairs: int64, float32, float32");
  const float start = static_cast<float>(pairs.start), cutoff = static_cast<float>(pairs.cutoff);
  const PairSplines splines{data<float>(table), table.size(0), table.size(1), start, cutoff,
                            static_cast<float>(table.size(1) - 3) / (cutoff - start)};
  const float *vectors = data<float>(pairs.vectors), *distances = data<float>(pairs.distances);
  const int64_t* types = data<int64_t>(pairs.types);
  Sums sums;
  std::vector<Tensor> result{sums.add(table, {num_atoms, 3}), sums.add(table, {1})};
  sums.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    double energy = 0;
    for (int64_t k = begin; k < end; ++k) {
      if (list.i[k] < 0 || !(distances[k] < cutoff) || types[k] < 0 || types[k] >= splines.types) continue;
      const PairEnergy found = pair_energy(splines, types[k], distances[k]);
      energy += found.energy;
      for (int d = 0; d < 3; ++d) {
        const float force = found.strength * vectors[3 * k + d];
        out[0][3 * list.i[k] + d] += force;
        out[0][3 * list.j[k] + d] -= force;
      }
    }
    out[1][0] += static_cast<float>(energy);
  });
  return result;
}

}  // namespace openmm_gnn
