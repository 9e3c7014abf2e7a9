// The kernels of pair_forces.h, which says what each computes.
#include "vector_gamd/cuda/pair_forces.h"

#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

OPENMM_GNN_LAUNCHES(AddPairForces<SplinePairs>)
OPENMM_GNN_LAUNCHES(AddPairForces<GivenPairs>)
OPENMM_GNN_LAUNCHES_ITEMS(ReadFixedSums)
OPENMM_GNN_LAUNCHES_ITEMS(KindsOfPairs)

}  // namespace openmm_gnn::cuda
