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

template <typename T>
WithinReport count_within(StreamHandle stream, const SkinState<T>& state, const Workspace<T>& work, double cutoff,
                          int32_t* kept, const ScanMemory& scan) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  mark_within(launcher, state, work, cutoff, kept, scan);
  WithinReport report;
  int64_t valid = 0;
  read_back(stream, &valid, state.status + kStatusValid, sizeof(valid));
  read_back(stream, &report.search, work.report, sizeof(report.search));
  read_back(stream, &report.found, scan.blocks + scan.num_blocks, sizeof(report.found));
  report.valid = valid != 0;
  return report;
}

template <typename T>
void emit_within(StreamHandle stream, const SkinState<T>& state, const Workspace<T>& work, const int32_t* kept,
                 const ScanMemory& scan, const PairTensors<T>& output) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  emit_within(launcher, state, work, kept, scan, output);
}

void read_back(StreamHandle stream, void* to, const void* from, size_t bytes) {
  wait_and_copy(static_cast<cudaStream_t>(stream), to, from, bytes);
}

#define OPENMM_GNN_INSTANTIATE(T)                                                                                      \
  template void update_list(StreamHandle, const System<T>&, const SkinState<T>&, const Workspace<T>&);                 \
  template void emit_padded(StreamHandle, const System<T>&, const SkinState<T>&, const Workspace<T>&,                  \
                            const PairTensors<T>&);                                                                    \
  template WithinReport count_within(StreamHandle, const SkinState<T>&, const Workspace<T>&, double, int32_t*,         \
                                     const ScanMemory&);                                                               \
  template void emit_within(StreamHandle, const SkinState<T>&, const Workspace<T>&, const int32_t*, const ScanMemory&, \
                            const PairTensors<T>&);
OPENMM_GNN_INSTANTIATE(float)
OPENMM_GNN_INSTANTIATE(double)
#undef OPENMM_GNN_INSTANTIATE

}  // namespace openmm_gnn::cuda
