// The kernels of network_forces.cpp; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "vector_gamd/cuda/atom_layers.h"
#include "vector_gamd/cuda/stored_pairs.h"

namespace openmm_gnn::cuda {

OPENMM_GNN_LAUNCHES_ITEMS(EmbedAtoms)
OPENMM_GNN_LAUNCHES(PrepareAtoms)
OPENMM_GNN_LAUNCHES(RoundOfAtoms)
OPENMM_GNN_LAUNCHES(RoundOfAtomsBack)
OPENMM_GNN_LAUNCHES(DecodeAtoms)
OPENMM_GNN_LAUNCHES(DecodeAtomsBack)
OPENMM_GNN_LAUNCHES_ITEMS(MarkKinds)
OPENMM_GNN_LAUNCHES_ITEMS(FillFloats)
OPENMM_GNN_LAUNCHES(AddPairForces<NetworkPairs, int32_t>)

#define KERNELS(T)                                            \
  OPENMM_GNN_LAUNCHES_ITEMS(KindsOfStored<T>)                  \
  OPENMM_GNN_LAUNCHES_ITEMS(EdgesOfStored<T>)                  \
  OPENMM_GNN_LAUNCHES_ITEMS(WriteForces<T>)                    \
  OPENMM_GNN_LAUNCHES(AddPairForces<PolynomialPairs<T>, int32_t>)

KERNELS(float)
KERNELS(double)

}  // namespace openmm_gnn::cuda
