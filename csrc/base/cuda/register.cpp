// Gives the schemas of ../ops.cpp their CUDA functions. Loaded after the CPU library, which defines the schemas.
#include "base/cuda_schemas.h"
#include "base/cuda/boxed_operators.h"

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CUDA, library) {
  OPENMM_GNN_CUDA_FUNCTIONS(library)
}
