// What operators of several subjects use of a CUDA stream: the kernels of sort_rows.h, clearing memory and reading it back.
#include "base/cuda/sort_rows.h"

#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

void StreamLauncher::clear(void* memory, size_t bytes) const {
  check_cuda(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream_)), "clearing memory");
}

void StreamLauncher::read_back(void* to, const void* from, size_t bytes) const {
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_);
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &capture), "asking for the state of the stream");
  if (capture != cudaStreamCaptureStatusNone) {
    throw std::runtime_error(
        "openmm_gnn: a list of exactly as many pairs as there are cannot be part of a CUDA graph, because its length "
        "must be read back: use NeighborList, whose lists on CUDA have a fixed shape");
  }
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "reading a result");
  check_cuda(cudaStreamSynchronize(stream), "the neighbour search");
}

OPENMM_GNN_LAUNCHES_ITEMS(CountEnds<1>)
OPENMM_GNN_LAUNCHES_ITEMS(CountEnds<2>)
OPENMM_GNN_LAUNCHES_ITEMS(CountEnds<2, int32_t>)
OPENMM_GNN_LAUNCHES_ITEMS(PlaceEnds<1>)
OPENMM_GNN_LAUNCHES_ITEMS(PlaceEnds<2>)
OPENMM_GNN_LAUNCHES_ITEMS(PlaceEnds<2, int32_t>)
OPENMM_GNN_LAUNCHES_ITEMS(RankEnds<1>)
OPENMM_GNN_LAUNCHES_ITEMS(RankEnds<2>)
OPENMM_GNN_LAUNCHES_ITEMS(RankEnds<2, int32_t>)
OPENMM_GNN_LAUNCHES(ScanBlocks<Plan<float>>)
OPENMM_GNN_LAUNCHES(ScanTotals<Plan<float>, FinishNothing>)

}  // namespace openmm_gnn::cuda
