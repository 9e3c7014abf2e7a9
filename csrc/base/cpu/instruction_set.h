// Which vector instructions the processor at hand has.
#pragma once

#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#define OPENMM_GNN_X86
#define OPENMM_GNN_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#endif

namespace openmm_gnn {

enum class InstructionSet { kPortable, kAVX2, kAVX512 };

// The best this processor has, or what OPENMM_GNN_CPU (portable, avx2, avx512) names if the processor has that.
#ifdef OPENMM_GNN_X86
inline InstructionSet instruction_set() {
  static const InstructionSet chosen = [] {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    const char* name = std::getenv("OPENMM_GNN_CPU");
    if (name != nullptr && std::strcmp(name, "portable") == 0) return InstructionSet::kPortable;
    if (name != nullptr && std::strcmp(name, "avx2") == 0 && avx2) return InstructionSet::kAVX2;
    return avx512 ? InstructionSet::kAVX512 : avx2 ? InstructionSet::kAVX2 : InstructionSet::kPortable;
  }();
  return chosen;
}

inline bool fuses_products() { return __builtin_cpu_supports("fma"); }
#else
inline InstructionSet instruction_set() { return InstructionSet::kPortable; }

inline bool fuses_products() { return false; }
#endif

// Of the loops that for_each_instruction_set.inl has compiled, those for this processor.
template <typename Kernels>
const Kernels& best_of(const Kernels& portable, const Kernels& avx2, const Kernels& avx512) {
  const InstructionSet set = instruction_set();
  if (set == InstructionSet::kAVX512) return avx512;
  return set == InstructionSet::kAVX2 && fuses_products() ? avx2 : portable;
}

}  // namespace openmm_gnn
