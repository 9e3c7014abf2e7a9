// All operators, whatever device they run on. Their contracts are in the headers below; each device's functions are given to
// them where they are written (base/boxed.h). The CUDA library is loaded after this one.
#include "base/boxed.h"
#include "encoders/messages.h"
#include "gamd/gamd_tiles.h"
#include "mesh/cpu/particle_mesh.h"
#include "neighbors/neighbor_pairs.h"
#include "vector_gamd/pair_rows.h"
#include "vector_gamd/radial_pair.h"

STABLE_TORCH_LIBRARY_FRAGMENT(OPENMM_GNN_LIBRARY, library) {
  using namespace openmm_gnn;
  const char* const schemas[] = {
      kNeighborPairs, kUpdateNeighborList, kNearestEdges, kFrameEdges,  // neighbor_pairs.h
      kPairRows, kVectorMessages, kVectorMessagesBackward, kPairStrengths, kPairStrengthsBackward,  // pair_rows.h
      kGamdEdges, kGamdMessages, kGamdStrengths,                                                    // gamd_tiles.h
      kPairTypes, kRadialPairForces, kPairForceSums,                    // radial_pair.h
      kMeshCharges, kMeshInfluence, kMeshForces,                        // particle_mesh.h
      kEdgeRows, kAttentionMessages, kAttentionMessagesBackward, kEdgeLayer,                      // encoders/messages.h
      kTensorMessages, kTensorMessagesBackward, kFirstTensors, kFirstTensorsBackward,
      kScaledTensors, kTensorProducts, kTensorSquares, kTabulatedFilters,
      kActivatedTable, kActivatedTableBackward, kAttentionNetwork, kAttentionNetworkBackward,
  };
  for (const char* schema : schemas) library.def(schema);
}
