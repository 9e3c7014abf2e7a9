// Which vector instructions the processor at hand has.
#pragma once

#define OPENMM_GNN_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

namespace openmm_gnn {

enum class InstructionSet { kPortable, kAVX2, kAVX512 };

// The best this processor has, or what OPENMM_GNN_CPU (portable, avx2, avx512) names if the processor has that.
InstructionSet instruction_set();

// Of the loops that for_each_instruction_set.inl has compiled, those for this processor.
template <typename Kernels>
const Kernels& best_of(const Kernels& portable, const Kernels& avx2, const Kernels& avx512) {
  const InstructionSet set = instruction_set();
  if (set == InstructionSet::kAVX512) return avx512;
  return set == InstructionSet::kAVX2 && __builtin_cpu_supports("fma") ? avx2 : portable;
}

}  // namespace openmm_gnn
