#include "vector_gamd/cpu/vector_network.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

// The loops are compiled three times, each for one instruction set, from the same source. The standard library's headers
// come before: code of theirs must not be compiled for processors that this one may not be.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC optimize("fp-contract=fast")

namespace openmm_gnn {

namespace portable {
#include "base/cpu/lanes.inl"
#include "vector_gamd/cpu/vector_network_kernels.inl"
}  // namespace portable

#undef INLINE
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#include "base/cpu/lanes.inl"
#include "vector_gamd/cpu/vector_network_kernels.inl"
}  // namespace avx2
#pragma GCC pop_options

#undef INLINE
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,bmi,bmi2")
namespace avx512 {
#include "base/cpu/lanes.inl"
#include "vector_gamd/cpu/vector_network_kernels.inl"
}  // namespace avx512
#pragma GCC pop_options

const VectorNetworkKernels& vector_network_kernels() {
  switch (instruction_set()) {
    case InstructionSet::kAVX512:
      return avx512::kernels;
    case InstructionSet::kAVX2:
      return __builtin_cpu_supports("fma") ? avx2::kernels : portable::kernels;
    default:
      return portable::kernels;
  }
}

}  // namespace openmm_gnn
