// The kernels of ../pair_rows.h; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "vector_gamd/cuda/pair_sums.h"

namespace openmm_gnn::cuda {

OPENMM_GNN_LAUNCHES_ITEMS(SumRowMessages<true>)
OPENMM_GNN_LAUNCHES_ITEMS(SumRowMessages<false>)
OPENMM_GNN_LAUNCHES_ITEMS(SumRowMessageGradients<true>)
OPENMM_GNN_LAUNCHES_ITEMS(SumRowMessageGradients<false>)
OPENMM_GNN_LAUNCHES(PairMessageGradientsKernel<true>)
OPENMM_GNN_LAUNCHES(PairMessageGradientsKernel<false>)
OPENMM_GNN_LAUNCHES(PairStrengthsKernel)
OPENMM_GNN_LAUNCHES_ITEMS(SumRowStrengthGradients)
OPENMM_GNN_LAUNCHES(PairStrengthGradientsKernel)

}  // namespace openmm_gnn::cuda
