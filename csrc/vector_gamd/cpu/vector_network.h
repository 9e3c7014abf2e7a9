// The loops over pairs of ../pair_rows.h on the CPU.
//
// Edge features never exist in memory: each pair is read once, both directions of its message are computed in
// registers, and the sums go to the atoms. The backward pass computes them again. Cost per pair and 16 channels: about
// 150 instructions forward, twice as many backward.
#pragma once

#include "vector_gamd/cpu/prepared_edges.h"
#include "vector_gamd/pair_rows.h"

namespace openmm_gnn {

// Pairs [begin, end); all sums are added to what the outputs hold.
struct VectorNetworkKernels {
  void (*messages)(const PairEnds&, int64_t begin, int64_t end, const RowMessages&, float* scalars, float* vectors);
  void (*message_gradients)(const PairEnds&, int64_t begin, int64_t end, const RowMessages&,
                            const RowMessageGradients&);
  void (*strengths)(const PairEnds&, int64_t begin, int64_t end, const RowStrengths&, float* strengths);
  void (*strength_gradients)(const PairEnds&, int64_t begin, int64_t end, const RowStrengths&,
                             const RowStrengthGradients&);
};

const VectorNetworkKernels& vector_network_kernels();

}  // namespace openmm_gnn
