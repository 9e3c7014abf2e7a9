// The CUDA library with the grid emulator in place of the GPU: the files of operators word for word, behind PyTorch's
// dispatcher, under the names openmm_gnn_emulated::... for tensors on the CPU. So everything but nvcc's part is tested on
// a machine without a GPU. With OPENMM_GNN_REAL_THREADS the threads of a block are threads (thread_emulator.h).
#define OPENMM_GNN_LIBRARY openmm_gnn_emulated
#define OPENMM_GNN_CUDA_OPERATORS OPENMM_GNN_CPU_OPERATORS

#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#include <torch/csrc/stable/accelerator.h>

#include <atomic>
#include <cstring>

#ifdef OPENMM_GNN_REAL_THREADS
#include "thread_emulator.h"
#else
#include "grid_emulator.h"
#endif

namespace emulator {

// There is no device to choose and no stream to ask for.
struct Guard {
  explicit Guard(int32_t) {}
};
inline AOTITorchError stream_of(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

}  // namespace emulator

namespace torch::stable::accelerator {
using EmulatedGuard = emulator::Guard;
}

#define DeviceGuard EmulatedGuard
#define aoti_torch_get_current_cuda_stream emulator::stream_of
#define aoti_torch_cuda__fft_r2c aoti_torch_cpu__fft_r2c
#define aoti_torch_cuda__fft_c2c aoti_torch_cpu__fft_c2c
#include "encoders/cuda/operators.cpp"
#include "neighbors/cuda/ops_cuda.cpp"
#include "vector_gamd/cuda/network_forces.cpp"
#include "vector_gamd/cuda/pair_operators.cpp"
#include "gamd/cuda/tile_operators.cpp"

namespace openmm_gnn::cuda {

template <class Kernel>
void StreamLauncher::launch(int64_t blocks, const Kernel& kernel) const {
#ifdef OPENMM_GNN_REAL_THREADS
  threaded::Launcher().launch(blocks, kernel);
#else
  static std::atomic<uint64_t> seed{0};
  emulator::Launcher(++seed).launch(blocks, kernel);
#endif
}

void StreamLauncher::clear(void* memory, size_t bytes) const { std::memset(memory, 0, bytes); }

void StreamLauncher::read_back(void* to, const void* from, size_t bytes) const { std::memcpy(to, from, bytes); }

}  // namespace openmm_gnn::cuda
