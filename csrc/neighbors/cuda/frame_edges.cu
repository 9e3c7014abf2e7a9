// The kernels of frame_edges.h, which says what each computes, what it costs and their order.
#include "neighbors/cuda/frame_edges.h"

#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

#define KERNELS(T)                                                          \
  OPENMM_GNN_LAUNCHES_ITEMS(PrepareFrames<T>)                               \
  OPENMM_GNN_LAUNCHES_ITEMS(SearchFrames<T, CountEdges<T>>)                 \
  OPENMM_GNN_LAUNCHES_ITEMS(LimitRows<T>)                                   \
  OPENMM_GNN_LAUNCHES_ITEMS(SearchFrames<T, WriteEdges<T, NearEdges<T>>>)   \
  OPENMM_GNN_LAUNCHES_ITEMS(SearchFrames<T, WriteEdges<T, EdgeIndex<T>>>)   \
  OPENMM_GNN_LAUNCHES_ITEMS(RankNearest<T>)

KERNELS(float)
KERNELS(double)
OPENMM_GNN_LAUNCHES(ScanBlocks<EdgeReport>)
OPENMM_GNN_LAUNCHES(ScanTotals<EdgeReport, StoreSum>)

}  // namespace openmm_gnn::cuda
