// CUDA alone has functions of these operators; TorchScript and torch.compile know them everywhere.
#include "base/boxed.h"
#include "gamd/gamd_tiles.h"

namespace openmm_gnn {

OPENMM_GNN_CPU_OPERATORS(library) {
  define<kGamdEdges>(library);
  define<kGamdMessages>(library);
  define<kGamdStrengths>(library);
}

}  // namespace openmm_gnn
