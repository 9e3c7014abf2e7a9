// The kernels of ../gamd_tiles.h for every width; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "gamd/cuda/tile_messages.h"
#include "gamd/cuda/tile_pairs.h"

namespace openmm_gnn::cuda {

#define KERNELS_OF_WIDTH(kWidth)           \
  OPENMM_GNN_LAUNCHES(TileEdges<kWidth>)    \
  OPENMM_GNN_LAUNCHES(TileMessages<kWidth>) \
  OPENMM_GNN_LAUNCHES(TileStrengths<kWidth>)

KERNELS_OF_WIDTH(16)
KERNELS_OF_WIDTH(32)
KERNELS_OF_WIDTH(64)
KERNELS_OF_WIDTH(128)

}  // namespace openmm_gnn::cuda
