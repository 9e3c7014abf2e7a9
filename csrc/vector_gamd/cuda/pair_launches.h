// What pair_forces.cu offers to pair_operators.cpp: plain pointers on the device, no torch. Nothing here waits.
#pragma once

#include "vector_gamd/cuda/pair_forces.h"

namespace openmm_gnn::cuda {

// A cudaStream_t without the CUDA headers, as in neighbor_lists.h.
using StreamHandle = void*;

void launch_kinds_of_pairs(StreamHandle stream, const int64_t* pairs, int64_t count, const KindTables& tables,
                           int64_t* types);

void launch_spline_forces(StreamHandle stream, const int64_t* pairs, int64_t count, int64_t num_atoms,
                          const SplinePairs& source, const FixedSums& sums, float* forces, float* energy);

void launch_given_forces(StreamHandle stream, const int64_t* pairs, int64_t count, int64_t num_atoms,
                         const GivenPairs& source, const FixedSums& sums, float* forces);

}  // namespace openmm_gnn::cuda
