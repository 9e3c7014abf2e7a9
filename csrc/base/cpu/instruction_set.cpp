#include "base/cpu/instruction_set.h"

#include <cstdlib>
#include <cstring>

namespace openmm_gnn {

InstructionSet instruction_set() {
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

}  // namespace openmm_gnn
