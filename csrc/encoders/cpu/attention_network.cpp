#include "encoders/cpu/attention_network.h"

#include <cmath>
#include <cstdint>

#include "encoders/cpu/encoder_messages.h"
#include "base/cpu/instruction_set.h"

// Compiled three times, each for one instruction set, as vector_network.cpp is.
#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC optimize("fp-contract=fast")

namespace openmm_gnn {

namespace portable {
constexpr int kTileRows = 2, kTileGroups = 2;
#include "base/cpu/lanes.inl"
#include "base/cpu/matrix_product.inl"
#include "encoders/cpu/attention_network.inl"
}  // namespace portable

#undef INLINE
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
constexpr int kTileRows = 2, kTileGroups = 2;
#include "base/cpu/lanes.inl"
#include "base/cpu/matrix_product.inl"
#include "encoders/cpu/attention_network.inl"
}  // namespace avx2
#pragma GCC pop_options

#undef INLINE
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,bmi,bmi2")
namespace avx512 {
constexpr int kTileRows = 6, kTileGroups = 4;
#include "base/cpu/lanes.inl"
#include "base/cpu/matrix_product.inl"
#include "encoders/cpu/attention_network.inl"
}  // namespace avx512
#pragma GCC pop_options

const AttentionNetworkKernels& attention_network_kernels() {
  switch (instruction_set()) {
    case InstructionSet::kAVX512:
      return avx512::network_kernels;
    case InstructionSet::kAVX2:
      return __builtin_cpu_supports("fma") ? avx2::network_kernels : portable::network_kernels;
    default:
      return portable::network_kernels;
  }
}

}  // namespace openmm_gnn
