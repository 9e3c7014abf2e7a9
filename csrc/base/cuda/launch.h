// Launches kernels on a CUDA stream. The one __global__ function: it lends shared memory to a kernel written as a function
// of a block (block.h) and runs it. One thread = whatever that kernel's file says. A .cu file names the kernels that it
// compiles: OPENMM_GNN_LAUNCHES(SomeKernel<float>), or OPENMM_GNN_LAUNCHES_ITEMS where it has items.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "base/cuda/block.h"
#include "base/cuda/stream.h"

#define OPENMM_GNN_LAUNCHES(...) template void StreamLauncher::launch(int64_t, const __VA_ARGS__&) const;
#define OPENMM_GNN_LAUNCHES_ITEMS(...) OPENMM_GNN_LAUNCHES(EachItem<__VA_ARGS__>)

namespace openmm_gnn::cuda {

// Blocks that a multiprocessor shall hold at least: 512 threads leave 128 registers to each, more than any kernel here
// needs. Without it the compiler aims at 1024 threads on sm_75 and spills.
template <class Kernel>
constexpr int kMinBlocks = Kernel::kThreads >= 32 ? 512 / Kernel::kThreads : 1;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, kMinBlocks<Kernel>)
    run_kernel(const __grid_constant__ Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  DeviceBlock block;
  kernel.run(block, shared);
}

inline void check_cuda(cudaError_t error, const char* doing) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("openmm_gnn: ") + doing + " failed on the GPU: " + cudaGetErrorString(error));
  }
}

template <class Kernel>
void StreamLauncher::launch(int64_t blocks, const Kernel& kernel) const {
  constexpr int64_t kMaxBlocks = 2147483647;  // of a grid's first dimension, since compute capability 3.0
  if (blocks == 0) return;
  if (blocks > kMaxBlocks) throw std::runtime_error("openmm_gnn: more blocks than a CUDA grid holds");
  run_kernel<<<static_cast<unsigned int>(blocks), Kernel::kThreads, 0, static_cast<cudaStream_t>(stream_)>>>(kernel);
  check_cuda(cudaGetLastError(), "a kernel launch");
}

}  // namespace openmm_gnn::cuda
