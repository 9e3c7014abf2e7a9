// The kernels of ../gamd_tiles.h for every width and kind of product; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "gamd/cuda/tile_messages.h"
#include "gamd/cuda/tile_pairs.h"

namespace openmm_gnn::cuda {

#define KERNELS(kWidth, kProducts)                    \
  OPENMM_GNN_LAUNCHES(TileEdges<kWidth, kProducts>)    \
  OPENMM_GNN_LAUNCHES(TileMessages<kWidth, kProducts>) \
  OPENMM_GNN_LAUNCHES(TileStrengths<kWidth, kProducts>)
#define KERNELS_OF_WIDTH(kWidth)     \
  KERNELS(kWidth, Products::kFloat32) \
  KERNELS(kWidth, Products::kTF32)    \
  KERNELS(kWidth, Products::kBfloat16)

KERNELS_OF_WIDTH(16)
KERNELS_OF_WIDTH(32)
KERNELS_OF_WIDTH(64)
KERNELS_OF_WIDTH(128)

}  // namespace openmm_gnn::cuda
