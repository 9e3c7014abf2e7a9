// Compiles the loops of one source file, which OPENMM_GNN_LOOPS names, for each instruction set in a namespace of its own:
// openmm_gnn::portable, avx2 and, unless OPENMM_GNN_WITHOUT_AVX512 is defined, avx512. `best_of` takes the one that suits.
// On other processors than x86-64 all of these names are the portable loops.
// The standard library's headers come before this file: code of theirs must not be compiled for processors that this one
// may not be.
#include "base/cpu/instruction_set.h"

#pragma GCC diagnostic ignored "-Wpsabi"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC optimize("fp-contract=fast")

namespace openmm_gnn {

namespace portable {
constexpr int kRegisterLanes = 4;
constexpr int kTileRows = 3, kTileGroups = 1;
#include "base/cpu/lanes.inl"
#include OPENMM_GNN_LOOPS
}  // namespace portable

#ifdef OPENMM_GNN_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2")
namespace avx2 {
constexpr int kRegisterLanes = 8;
constexpr int kTileRows = 6, kTileGroups = 1;
#include "base/cpu/lanes.inl"
#include OPENMM_GNN_LOOPS
}  // namespace avx2
#pragma GCC pop_options

#ifndef OPENMM_GNN_WITHOUT_AVX512
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,fma,bmi,bmi2")
namespace avx512 {
constexpr int kRegisterLanes = 16;
constexpr int kTileRows = 6, kTileGroups = 4;
#include "base/cpu/lanes.inl"
#include OPENMM_GNN_LOOPS
}  // namespace avx512
#pragma GCC pop_options
#endif
#else
namespace avx2 = portable;
namespace avx512 = portable;
#endif

}  // namespace openmm_gnn
