// Forces between pairs that depend on species and distance alone, and the types of pairs: plain loops over pairs.
#include <cmath>
#include <cstring>
#include <vector>

#include "operators.h"
#include "sums.h"

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
  const int64_t levels = partners.size(0), most = partners.size(2), kinds = num_species * (num_species + 1) / 2;
  const int64_t *kind_of = data<int64_t>(species), *partner = data<int64_t>(partners);
  int64_t* types = data<int64_t>(result);
  for (int64_t k = 0; k < list.count; ++k) {
    const int64_t i = list.i[k], j = list.j[k];
    types[k] = 0;
    if (i < 0 || j < 0) continue;
    int64_t separation = 0;
    for (int64_t level = 0; level < levels; ++level) {
      const int64_t* row = partner + (level * num_atoms + i) * most;
      for (int64_t m = 0; m < most; ++m) separation = row[m] == j ? level + 1 : separation;
    }
    const int64_t low = kind_of[i] < kind_of[j] ? kind_of[i] : kind_of[j], high = kind_of[i] + kind_of[j] - low;
    types[k] = separation * kinds + high * (high + 1) / 2 + low;
  }
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
  const int64_t knots = table.size(1), num_types = table.size(0);
  const float start = static_cast<float>(pairs.start), cutoff = static_cast<float>(pairs.cutoff);
  const float inverse_spacing = static_cast<float>(knots - 3) / (cutoff - start);
  const float *coefficients = data<float>(table), *vectors = data<float>(pairs.vectors),
              *distances = data<float>(pairs.distances);
  const int64_t* types = data<int64_t>(pairs.types);
  Sums sums;
  std::vector<Tensor> result{sums.add(table, {num_atoms, 3}), sums.add(table, {1})};
  sums.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    double energy = 0;
    for (int64_t k = begin; k < end; ++k) {
      const float distance = distances[k];
      if (list.i[k] < 0 || !(distance < cutoff) || types[k] < 0 || types[k] >= num_types) continue;
      const float x = (distance - start) * inverse_spacing;
      int64_t knot = x > 0 ? static_cast<int64_t>(x) : 0;
      knot = knot < knots - 4 ? knot : knots - 4;
      const float t = x > 0 ? x - static_cast<float>(knot) : 0;
      const float* c = coefficients + types[k] * knots + knot;
      const float s = 1 - t, t2 = t * t;
      // Below the first knot the energy goes on along its tangent: the force stays what it is there.
      const float slope = inverse_spacing * (-0.5f * s * s * c[0] + (1.5f * t2 - 2 * t) * c[1] +
                                             (-1.5f * t2 + t + 0.5f) * c[2] + 0.5f * t2 * c[3]);
      energy += (s * s * s * c[0] + (3 * t2 * t - 6 * t2 + 4) * c[1] + (-3 * t2 * t + 3 * t2 + 3 * t + 1) * c[2] +
                 t2 * t * c[3]) / 6 + (x < 0 ? slope * (distance - start) : 0.f);
      const float strength = slope / (distance > 1e-6f ? distance : 1e-6f);
      for (int d = 0; d < 3; ++d) {
        const float force = strength * vectors[3 * k + d];
        out[0][3 * list.i[k] + d] += force;
        out[0][3 * list.j[k] + d] -= force;
      }
    }
    out[1][0] += static_cast<float>(energy);
  });
  return result;
}

}  // namespace openmm_gnn
