// frame_edges on the GPU; frame_edges.h has the kernels, what they cost and their order.
#include "neighbors/cuda/frame_edges.h"

#include "base/cuda/launch.h"
#include "neighbors/cuda/read_back.h"

namespace openmm_gnn::cuda {

template <typename T>
EdgeReport count_frame_edges(StreamHandle stream, const FrameSearch<T>& search) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  count_frame_edges(launcher, search);
  EdgeReport report;
  wait_and_copy(static_cast<cudaStream_t>(stream), &report, search.report, sizeof(report));
  return report;
}

template <typename T>
void write_frame_edges(StreamHandle stream, const FrameSearch<T>& search, const NearEdges<T>& near,
                       const EdgeIndex<T>& output) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  write_frame_edges(launcher, search, near, output);
}

template EdgeReport count_frame_edges(StreamHandle, const FrameSearch<float>&);
template EdgeReport count_frame_edges(StreamHandle, const FrameSearch<double>&);
template void write_frame_edges(StreamHandle, const FrameSearch<float>&, const NearEdges<float>&,
                                const EdgeIndex<float>&);
template void write_frame_edges(StreamHandle, const FrameSearch<double>&, const NearEdges<double>&,
                                const EdgeIndex<double>&);

}  // namespace openmm_gnn::cuda
