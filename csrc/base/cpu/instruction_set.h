// Which vector instructions the processor at hand has.
#pragma once

#define OPENMM_GNN_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

namespace openmm_gnn {

enum class InstructionSet { kPortable, kAVX2, kAVX512 };

// The best this processor has, or what OPENMM_GNN_CPU (portable, avx2, avx512) names if the processor has that.
InstructionSet instruction_set();

}  // namespace openmm_gnn
