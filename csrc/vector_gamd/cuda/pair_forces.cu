// Kinds and forces of pairs on the GPU; pair_forces.h says what each kernel computes.
#include "base/cuda/launch.h"
#include "vector_gamd/cuda/pair_launches.h"

namespace openmm_gnn::cuda {

void launch_kinds_of_pairs(StreamHandle stream, const int64_t* pairs, int64_t count, const KindTables& tables,
                           int64_t* types) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  kinds_of_pairs(launcher, pairs, count, tables, types);
}

void launch_spline_forces(StreamHandle stream, const int64_t* pairs, int64_t count, int64_t num_atoms,
                          const SplinePairs& source, const FixedSums& sums, float* forces, float* energy) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  add_pair_forces(launcher, pairs, count, num_atoms, source, sums, forces, energy);
}

void launch_given_forces(StreamHandle stream, const int64_t* pairs, int64_t count, int64_t num_atoms,
                         const GivenPairs& source, const FixedSums& sums, float* forces) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  add_pair_forces(launcher, pairs, count, num_atoms, source, sums, forces, nullptr);
}

}  // namespace openmm_gnn::cuda
