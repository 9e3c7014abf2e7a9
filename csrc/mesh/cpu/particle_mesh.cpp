#include "mesh/cpu/particle_mesh.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

// Rows have eight points, so lanes wider than those of AVX2 would bring nothing.
#define OPENMM_GNN_WITHOUT_AVX512
#define OPENMM_GNN_LOOPS "mesh/cpu/particle_mesh_kernels.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const ParticleMeshKernels& particle_mesh_kernels() {
  return best_of(portable::kernels, avx2::kernels, avx2::kernels);
}

}  // namespace openmm_gnn
