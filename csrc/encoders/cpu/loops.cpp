#include <cmath>
#include <cstdint>

#include "base/cpu/instruction_set.h"
#include "encoders/cpu/messages.h"
#include "encoders/cpu/network.h"

#define OPENMM_GNN_LOOPS "encoders/cpu/loops.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const EncoderKernels& encoder_kernels() {
  return best_of(portable::kernels, avx2::kernels, avx512::kernels);
}

const AttentionNetworkKernels& attention_network_kernels() {
  return best_of(portable::network_kernels, avx2::network_kernels, avx512::network_kernels);
}

}  // namespace openmm_gnn
