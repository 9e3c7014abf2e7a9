// The kernels of ../pair_rows.h; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "vector_gamd/cuda/pair_sums.h"

namespace openmm_gnn::cuda {

#define KERNELS(Ends)                                            \
  OPENMM_GNN_LAUNCHES(SumRowMessages<true, Ends>)                 \
  OPENMM_GNN_LAUNCHES(SumRowMessages<false, Ends>)                \
  OPENMM_GNN_LAUNCHES(SumRowMessageGradients<true, Ends>)         \
  OPENMM_GNN_LAUNCHES(PairMessageGradientsKernel<true, Ends>)     \
  OPENMM_GNN_LAUNCHES(PairMessageGradientsKernel<false, Ends>)    \
  OPENMM_GNN_LAUNCHES(PairStrengthsKernel<Ends>)                  \
  OPENMM_GNN_LAUNCHES(SumRowStrengthGradients<Ends>)              \
  OPENMM_GNN_LAUNCHES(PairStrengthGradientsKernel<Ends>)

KERNELS(PairEnds)
KERNELS(StoredEnds)
OPENMM_GNN_LAUNCHES(SumRowMessageGradients<false, PairEnds>)

}  // namespace openmm_gnn::cuda
