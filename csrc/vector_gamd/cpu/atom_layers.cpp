#include "vector_gamd/cpu/atom_layers.h"

#include <cmath>
#include <cstdint>

#include "base/cpu/instruction_set.h"

#define OPENMM_GNN_LOOPS "vector_gamd/cpu/atom_layers.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const ForceKernels& force_kernels() { return best_of(portable::kernels, avx2::kernels, avx512::kernels); }

}  // namespace openmm_gnn
