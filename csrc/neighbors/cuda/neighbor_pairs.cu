// neighbor_pairs on the GPU: every pair within the cutoff, found anew.
//
// The kernels stand in one file each, with what they compute, what one thread is and what they cost; pipeline.h has
// their order. Total at 1e6 atoms and 20 neighbours, float32: 27 cells * 5 atoms * 2 passes of candidates from the
// cache, and per atom some 200 bytes of scratch and 20 pairs * 28 written bytes. The one __global__ is in launch.h.
#include "neighbors/cuda/neighbor_lists.h"
#include "neighbors/cuda/pipeline.h"
#include "neighbors/cuda/read_back.h"

namespace openmm_gnn::cuda {

template <typename T>
Report find_pairs(StreamHandle stream, const System<T>& system, const Workspace<T>& work) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  find_pairs(launcher, system, work);
  Report report;
  wait_and_copy(static_cast<cudaStream_t>(stream), &report, work.report, sizeof(report));
  return report;
}

template <typename T>
void write_pairs(StreamHandle stream, const System<T>& system, const Workspace<T>& work, const PairTensors<T>& output) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  write_pairs(launcher, system, work, output);
}

template Report find_pairs(StreamHandle, const System<float>&, const Workspace<float>&);
template Report find_pairs(StreamHandle, const System<double>&, const Workspace<double>&);
template void write_pairs(StreamHandle, const System<float>&, const Workspace<float>&, const PairTensors<float>&);
template void write_pairs(StreamHandle, const System<double>&, const Workspace<double>&, const PairTensors<double>&);

}  // namespace openmm_gnn::cuda
