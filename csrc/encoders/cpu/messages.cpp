#include "encoders/cpu/messages.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

#define OPENMM_GNN_LOOPS "encoders/cpu/messages.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const EncoderKernels& encoder_kernels() {
  return best_of(portable::kernels, avx2::kernels, avx512::kernels);
}

}  // namespace openmm_gnn
