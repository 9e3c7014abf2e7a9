// Which pairs belong to a list: the distance test and the choice of one of the two directions.
#pragma once

#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// |r|^2, in this order and without fused multiply-adds, so that all instruction sets agree bit by bit
// (compile with -ffp-contract=off, nvcc: -fmad=false).
template <typename T>
OPENMM_GNN_HOST_DEVICE T squared_length(T x, T y, T z) {
  return x * x + y * y + z * z;
}

// Strictly closer than the cutoff; false for NaN.
template <typename T>
OPENMM_GNN_HOST_DEVICE bool within(T squared_distance, T cutoff) {
  return squared_distance < cutoff * cutoff;
}

// The same atom in the same image, the only pair that no list has. Coincident atoms are a pair.
OPENMM_GNN_HOST_DEVICE bool is_self(int64_t i, int64_t j, int32_t sx, int32_t sy, int32_t sz) {
  return i == j && sx == 0 && sy == 0 && sz == 0;
}

// Of the two directions (i, j, S) and (j, i, -S) the half list keeps one, chosen by integers alone: i < j, and for an
// atom and its own image the lexicographically positive shift.
OPENMM_GNN_HOST_DEVICE bool in_half_list(int64_t i, int64_t j, int32_t sx, int32_t sy, int32_t sz) {
  if (i != j) return i < j;
  if (sx != 0) return sx > 0;
  if (sy != 0) return sy > 0;
  return sz > 0;
}

// Shift between raw positions from the shift between wrapped ones: S = image + wrap_i - wrap_j along each vector.
OPENMM_GNN_HOST_DEVICE int32_t raw_shift(int32_t image, int32_t wrap_i, int32_t wrap_j) {
  return static_cast<int32_t>(static_cast<int64_t>(image) + wrap_i - wrap_j);
}

}  // namespace openmm_gnn
