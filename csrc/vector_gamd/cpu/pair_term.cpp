#include "vector_gamd/cpu/pair_term.h"

#include <cmath>
#include <cstdint>

#include "base/cpu/instruction_set.h"

// A place has three numbers, so lanes wider than those of AVX2 would bring nothing.
#define OPENMM_GNN_WITHOUT_AVX512
#define OPENMM_GNN_LOOPS "vector_gamd/cpu/pair_term.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const PairTermKernels& pair_term_kernels() { return best_of(portable::kernels, avx2::kernels, avx2::kernels); }

}  // namespace openmm_gnn
