// update_neighbor_list on the GPU: the skin list, without a word to the host.
//
// The kernels stand in one file each, with what they compute, what one thread is and what they cost; pipeline.h has
// their order. A step that needs no rebuild costs the displacement check (48 bytes per atom at float32), the emission
// (20 to 64 bytes per slot) and 6 to 10 kernels that return at once. The one __global__ is in launch.h.
#include "neighbors/cuda/neighbor_lists.h"
#include "neighbors/cuda/pipeline.h"
#include "neighbors/cuda/read_back.h"

namespace openmm_gnn::cuda {

template <typename T>
void update_list(StreamHandle stream, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  update_list(launcher, system, state, work);
}

template <typename T>
void emit_padded(StreamHandle stream, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work,
                 const PairTensors<T>& output) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  emit_padded(launcher, system, state, work, output);
}

void read_back(StreamHandle stream, void* to, const void* from, size_t bytes) {
  wait_and_copy(static_cast<cudaStream_t>(stream), to, from, bytes);
}

template void update_list(StreamHandle, const System<float>&, const SkinState<float>&, const Workspace<float>&);
template void update_list(StreamHandle, const System<double>&, const SkinState<double>&, const Workspace<double>&);
template void emit_padded(StreamHandle, const System<float>&, const SkinState<float>&, const Workspace<float>&,
                          const PairTensors<float>&);
template void emit_padded(StreamHandle, const System<double>&, const SkinState<double>&, const Workspace<double>&,
                          const PairTensors<double>&);

}  // namespace openmm_gnn::cuda
