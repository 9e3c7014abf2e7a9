// What tile_sums.cu offers to tile_operators.cpp: plain pointers on the device, no torch. Nothing here waits.
#pragma once

#include "gamd/gamd_tiles.h"

namespace openmm_gnn::cuda {

// A cudaStream_t without the CUDA headers, as in neighbor_lists.h.
using StreamHandle = void*;

// The widths there are kernels for.
inline bool is_tile_width(int64_t width) { return width == 16 || width == 32 || width == 64 || width == 128; }

void launch_gamd_edges(StreamHandle stream, int64_t width, Products products, const GamdEdges& in);
void launch_gamd_messages(StreamHandle stream, int64_t width, Products products, const GamdMessages& in);
void launch_gamd_strengths(StreamHandle stream, int64_t width, Products products, const GamdStrengths& in);

}  // namespace openmm_gnn::cuda
