// neighbor_pairs and update_neighbor_list on the GPU.
//
// The kernels stand in one file each, with what they compute, what one thread is and what they cost; pipeline.h has
// their order. neighbor_pairs at 1e6 atoms and 20 neighbours, float32: 27 cells * 5 atoms of candidates from the cache, and
// per atom some 250 bytes of scratch and 20 pairs * 28 written bytes. A step of update_neighbor_list that
// needs no rebuild costs the displacement check (48 bytes per atom at float32), the emission (20 to 64 bytes per slot)
// and 6 to 10 kernels that return at once.
#include "base/cuda/launch.h"
#include "neighbors/cuda/pipeline.h"

namespace openmm_gnn::cuda {

#define SEARCHES(T, ...)                          \
  OPENMM_GNN_LAUNCHES(SearchTiles<T, __VA_ARGS__>) \
  OPENMM_GNN_LAUNCHES_ITEMS(SearchCells<T, __VA_ARGS__>)
#define KERNELS(T)                                           \
  OPENMM_GNN_LAUNCHES(PlanSearch<T>)                          \
  OPENMM_GNN_LAUNCHES_ITEMS(CheckDisplacements<T>)            \
  OPENMM_GNN_LAUNCHES_ITEMS(WrapAtoms<T>)                     \
  OPENMM_GNN_LAUNCHES_ITEMS(GatherMembers<T>)                 \
  OPENMM_GNN_LAUNCHES_ITEMS(RankMembers<T>)                   \
  SEARCHES(T, CountPairs<T>)                                 \
  SEARCHES(T, WritePairs<T, PairTensors<T>>)                 \
  SEARCHES(T, WritePairs<T, StoredList<T>>)                  \
  OPENMM_GNN_LAUNCHES(ScanTotals<Plan<T>, FinishReport<T>>)   \
  OPENMM_GNN_LAUNCHES(ScanTotals<Plan<T>, FinishState<T>>)    \
  OPENMM_GNN_LAUNCHES_ITEMS(EmitPadded<T>)

KERNELS(float)
KERNELS(double)
OPENMM_GNN_LAUNCHES(ScanBlocks<Plan<double>>)  // sort_rows.cu has the others
OPENMM_GNN_LAUNCHES(ScanTotals<Plan<double>, FinishNothing>)

}  // namespace openmm_gnn::cuda
