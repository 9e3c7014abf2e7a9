#include "mesh/cpu/particle_mesh.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

// The loops are compiled for two instruction sets from the same source. The standard library's headers come before: code
// of theirs must not be compiled for processors that this one may not be. Rows have eight points, so lanes wider than
// those of AVX2 would bring nothing.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC optimize("fp-contract=fast")

namespace openmm_gnn {

namespace portable {
#include "base/cpu/lanes.inl"
#include "mesh/cpu/particle_mesh_kernels.inl"
}  // namespace portable

#undef INLINE
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#include "base/cpu/lanes.inl"
#include "mesh/cpu/particle_mesh_kernels.inl"
}  // namespace avx2
#pragma GCC pop_options

const ParticleMeshKernels& particle_mesh_kernels() {
  const bool wide = instruction_set() != InstructionSet::kPortable && __builtin_cpu_supports("fma");
  return wide ? avx2::kernels : portable::kernels;
}

}  // namespace openmm_gnn
