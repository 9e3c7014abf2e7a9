// Arguments of the operators of radial_pair.h, from tensors to what the loops take.
#pragma once

#include "base/arguments.h"
#include "base/boxed.h"
#include "vector_gamd/radial_pair.h"

namespace openmm_gnn {

inline KindTables kind_tables(const CheckedArguments& given, const Tensor& species, const Tensor& partners,
                              int64_t num_species) {
  const int64_t* of_atoms = given.get<int64_t>(species, "species", {kAny});
  const int64_t atoms = species.size(0);
  const int64_t* bonded = given.get<int64_t>(partners, "partners", {kAny, atoms, kAny});
  check(num_species < (int64_t(1) << 30), "num_species is " + std::to_string(num_species) + ": give less than 2^30");
  return {atoms, partners.size(0), partners.size(2), num_species * (num_species + 1) / 2, of_atoms, bonded};
}

struct SplinedPairs {
  Tensor pairs, types, vectors, distances, table;
  double start, cutoff;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, double, double>;
};

struct SplineArrays {
  PairSplines splines;
  const int64_t* types;    // (P,)
  const float* vectors;    // (P, 3)
  const float* distances;  // (P,)
};

inline SplineArrays spline_arrays(const CheckedArguments& given, const SplinedPairs& in) {
  const float* table = given.get<float>(in.table, "table", {kAny, kAny});
  const float start = static_cast<float>(in.start), cutoff = static_cast<float>(in.cutoff);
  check(in.table.size(1) >= 4 && start < cutoff && cutoff < 1e18,
        "a table of splines needs 4 knots and start below a finite cutoff");
  const int64_t count = in.pairs.size(1);
  return {{table, in.table.size(0), in.table.size(1), start, cutoff,
           static_cast<float>(in.table.size(1) - 3) / (cutoff - start)},
          given.get<int64_t>(in.types, "types", {count}),
          given.get<float>(in.vectors, "vectors", {count, 3}),
          given.get<float>(in.distances, "distances", {count})};
}

}  // namespace openmm_gnn
