// A pair's kind, and the energy and force of a cubic spline of its distance: what kernels/radial_pairs.py describes, for
// the CPU and the GPU alike.
#pragma once

#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// The kind of each pair (P,), 0 for padding. partners is (levels, N, most) of graph/topology_tables.py.
inline constexpr char kPairTypes[] = "pair_types(Tensor pairs, Tensor species, Tensor partners, int num_species) -> Tensor";

// Forces (N, 3) and energy (1,) of splines of the distance, (types, knots).
inline constexpr char kRadialPairForces[] =
    "radial_pair_forces(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor table, float start,"
    " float cutoff, int num_threads, int num_atoms) -> (Tensor forces, Tensor energy)";

// The sum (N, 3) of given forces (P, 3), which push i along the pair and j against it; on CUDA alone.
inline constexpr char kPairForceSums[] = "pair_force_sums(Tensor pair_forces, Tensor pairs, int num_atoms) -> Tensor";

// Atoms' species, and who is bonded to whom: (levels, num_atoms, most) of graph/topology_tables.py.
struct KindTables {
  int64_t num_atoms, levels, most, num_kinds;
  const int64_t *species, *partners;
};

// 0 for padding.
OPENMM_GNN_HOST_DEVICE int64_t pair_kind(const KindTables& tables, int64_t i, int64_t j) {
  if (i < 0 || j < 0) return 0;
  int64_t separation = 0;
  for (int64_t level = 0; level < tables.levels; ++level) {
    const int64_t* row = tables.partners + (level * tables.num_atoms + i) * tables.most;
    for (int64_t m = 0; m < tables.most; ++m) separation = row[m] == j ? level + 1 : separation;
  }
  const int64_t first = tables.species[i], second = tables.species[j];
  const int64_t low = first < second ? first : second, high = first + second - low;
  return separation * tables.num_kinds + high * (high + 1) / 2 + low;
}

// Splines on equally spaced knots from start to cutoff, (types, knots).
struct PairSplines {
  const float* coefficients;
  int64_t types, knots;
  float start, cutoff, inverse_spacing;
};

struct PairEnergy {
  float energy;
  float strength;  // the energy's derivative over the distance
};

// Below the first knot the energy goes on along its tangent: the force stays what it is there.
OPENMM_GNN_HOST_DEVICE PairEnergy pair_energy(const PairSplines& splines, int64_t type, float distance) {
  const float x = (distance - splines.start) * splines.inverse_spacing;
  int64_t knot = x > 0 ? static_cast<int64_t>(x) : 0;
  knot = knot < splines.knots - 4 ? knot : splines.knots - 4;
  const float t = x > 0 ? x - static_cast<float>(knot) : 0;
  const float* c = splines.coefficients + type * splines.knots + knot;
  const float s = 1 - t, t2 = t * t;
  const float slope = splines.inverse_spacing * (-0.5f * s * s * c[0] + (1.5f * t2 - 2 * t) * c[1] +
                                                 (-1.5f * t2 + t + 0.5f) * c[2] + 0.5f * t2 * c[3]);
  const float energy = (s * s * s * c[0] + (3 * t2 * t - 6 * t2 + 4) * c[1] +
                        (-3 * t2 * t + 3 * t2 + 3 * t + 1) * c[2] + t2 * t * c[3]) / 6 +
                       (x < 0 ? slope * (distance - splines.start) : 0.f);
  return {energy, slope / (distance > 1e-6f ? distance : 1e-6f)};
}

}  // namespace openmm_gnn
