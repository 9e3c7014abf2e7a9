// The kernels of mesh_charges.h, which says what each computes.
#include "mesh/cuda/mesh_charges.h"

#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

#define KERNELS(T)                                \
  OPENMM_GNN_LAUNCHES_ITEMS(SpreadCharges<T>)      \
  OPENMM_GNN_LAUNCHES_ITEMS(MeshFactors<T>)        \
  OPENMM_GNN_LAUNCHES_ITEMS(MeshWaves<T>)          \
  OPENMM_GNN_LAUNCHES(GatherCharges<T>)

KERNELS(float)
KERNELS(double)
OPENMM_GNN_LAUNCHES_ITEMS(GridToFloats)

}  // namespace openmm_gnn::cuda
