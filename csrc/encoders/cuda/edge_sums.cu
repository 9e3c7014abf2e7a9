// The kernels of ../messages.h; each one's file says what it computes.
#include "base/cuda/launch.h"
#include "encoders/cuda/attention_gradients.h"
#include "encoders/cuda/tensor_rows.h"

namespace openmm_gnn::cuda {

OPENMM_GNN_LAUNCHES(AttentionRowsKernel)
OPENMM_GNN_LAUNCHES(AttentionReceiverGradients)
OPENMM_GNN_LAUNCHES(AttentionSenderGradients)
OPENMM_GNN_LAUNCHES(EdgeAttentionRowsKernel)
OPENMM_GNN_LAUNCHES(EdgeVectorRowsKernel)
OPENMM_GNN_LAUNCHES(TensorRowsKernel<true>)
OPENMM_GNN_LAUNCHES(TensorRowsKernel<false>)
OPENMM_GNN_LAUNCHES_ITEMS(Filters)
OPENMM_GNN_LAUNCHES_ITEMS(TensorAtoms<TensorFormula::kScaled>)
OPENMM_GNN_LAUNCHES_ITEMS(TensorAtoms<TensorFormula::kProduct>)
OPENMM_GNN_LAUNCHES_ITEMS(TensorAtoms<TensorFormula::kSquare>)

}  // namespace openmm_gnn::cuda
