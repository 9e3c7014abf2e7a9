#include "encoders/cpu/gradients.h"

#include <cstdint>

#include "base/cpu/instruction_set.h"

#define OPENMM_GNN_LOOPS "encoders/cpu/gradients.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const EncoderGradientKernels& encoder_gradient_kernels() {
  return best_of(portable::gradient_kernels, avx2::gradient_kernels, avx512::gradient_kernels);
}

}  // namespace openmm_gnn
