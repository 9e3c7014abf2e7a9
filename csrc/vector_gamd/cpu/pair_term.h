// Energy and forces of a sum of splines of the distance, from the stored pairs of a neighbour list.
#pragma once

#include <cstdint>

namespace openmm_gnn {

// Splines as polynomials of the place in each interval; below the first, the energy goes on along its tangent.
struct PairPolynomials {
  const double* values;  // (kinds, intervals, 4)
  int64_t kinds, intervals;
  double start, inverse_spacing;
};

// Stored pairs, and where their atoms are now. The list is the caller's memory: what is no atom or no kind is not used.
struct FarPairs {
  const int32_t *first, *second, *shifts, *kinds;  // shifts (pairs, 3)
  int64_t atoms;
  const double* places;  // (atoms, 4)
  double box[3][4];      // rows; zeros for an open boundary
  double cutoff_squared;
};

struct PairTermKernels {
  // Adds the forces (atoms, 4) of pairs [begin, end) and their energy. Returns the first pair that cannot be used, or end.
  int64_t (*add)(const FarPairs&, int64_t begin, int64_t end, const PairPolynomials&, double* forces, double* energy);
};

const PairTermKernels& pair_term_kernels();

}  // namespace openmm_gnn
