#include "vector_gamd/cpu/vector_network.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

#define OPENMM_GNN_LOOPS "vector_gamd/cpu/vector_network_kernels.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const VectorNetworkKernels& vector_network_kernels() {
  return best_of(portable::kernels, avx2::kernels, avx512::kernels);
}

}  // namespace openmm_gnn
