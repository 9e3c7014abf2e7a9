// Gives the schemas of ../ops.cpp their CUDA functions. Loaded after the CPU library, which defines the schemas.
#include "base/cuda_schemas.h"
#include "base/cuda/boxed_operators.h"

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CUDA, library) {
  library.impl("scaled_tensors", &openmm_gnn::cuda::boxed_scaled_tensors);
  library.impl("tensor_products", &openmm_gnn::cuda::boxed_tensor_products);
  library.impl("tensor_squares", &openmm_gnn::cuda::boxed_tensor_squares);
  OPENMM_GNN_CUDA_FUNCTIONS(library)
}
