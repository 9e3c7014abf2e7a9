// The one place that waits for the GPU.
#pragma once

#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

inline void wait_and_copy(cudaStream_t stream, void* to, const void* from, size_t bytes) {
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

}  // namespace openmm_gnn::cuda
