// A CUDA stream, for the C++ compiler: operators launch kernels through it without a CUDA header. `launch` exists for the
// kernels that a .cu file names (launch.h), and in the grid emulator of the tests for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace openmm_gnn::cuda {

class StreamLauncher {
 public:
  explicit StreamLauncher(void* stream) : stream_(stream) {}

  // Starts so many blocks of a kernel as block.h describes it. Never waits, allocates nothing.
  template <class Kernel>
  void launch(int64_t blocks, const Kernel& kernel) const;

  // Sets all bytes to zero. Never waits.
  void clear(void* memory, size_t bytes) const;

  // Copies from the device and waits: the one place that does. Not possible inside a CUDA graph; the error says so.
  void read_back(void* to, const void* from, size_t bytes) const;

 private:
  void* stream_;  // a cudaStream_t
};

}  // namespace openmm_gnn::cuda
