#include "encoders/cpu/encoder_gradients.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

// Compiled three times, each for one instruction set, as vector_network.cpp is.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC optimize("fp-contract=fast")

namespace openmm_gnn {

namespace portable {
#include "base/cpu/lanes.inl"
#include "encoders/cpu/encoder_tables.inl"
#include "encoders/cpu/encoder_gradients.inl"
}  // namespace portable

#undef INLINE
#undef SWAPPED
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
#include "base/cpu/lanes.inl"
#include "encoders/cpu/encoder_tables.inl"
#include "encoders/cpu/encoder_gradients.inl"
}  // namespace avx2
#pragma GCC pop_options

#undef INLINE
#undef SWAPPED
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,bmi,bmi2")
namespace avx512 {
#include "base/cpu/lanes.inl"
#include "encoders/cpu/encoder_tables.inl"
#include "encoders/cpu/encoder_gradients.inl"
}  // namespace avx512
#pragma GCC pop_options

const EncoderGradientKernels& encoder_gradient_kernels() {
  switch (instruction_set()) {
    case InstructionSet::kAVX512:
      return avx512::gradient_kernels;
    case InstructionSet::kAVX2:
      return __builtin_cpu_supports("fma") ? avx2::gradient_kernels : portable::gradient_kernels;
    default:
      return portable::gradient_kernels;
  }
}

}  // namespace openmm_gnn
