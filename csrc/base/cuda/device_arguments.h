// Checks of tensor arguments, memory and the current stream, for the operators whose indices are not looked at: that would mean
// to wait for the device. They come from our own list, which gives none that is out of range.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <cmath>
#include <sstream>

#include "base/arguments.h"
#include "base/cuda/stream.h"
#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

using torch::stable::accelerator::DeviceGuard;

inline void check_num_pairs(int64_t count) {
  check(count < (int64_t(1) << 30), "more than 2^30 pairs: give fewer, or lower max_neighbors");
}

// The current stream of the tensor's device.
inline StreamLauncher launcher_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return StreamLauncher(stream);
}

// Three numbers of a strided array as text, for error messages; waits for the device.
template <typename T>
std::string row_text(const StreamLauncher& launcher, const T* row, int64_t stride, bool* finite = nullptr) {
  std::ostringstream text;
  if (finite != nullptr) *finite = true;
  for (int d = 0; d < 3; ++d) {
    T value;
    launcher.read_back(&value, row + d * stride, sizeof(value));
    if (finite != nullptr) *finite = *finite && std::isfinite(value);
    text << (d ? ", " : "(") << value;
  }
  return text.str() + ")";
}

// What a kernel reads or writes, or nothing.
inline float* or_null(const Tensor& tensor) { return tensor.numel() > 0 ? data<float>(tensor) : nullptr; }

// Memory for what `lay_out` takes from a Carver; it may go as soon as all is launched.
template <class LayOut>
Tensor scratch_of(const Tensor& like, LayOut lay_out) {
  Carver measure(nullptr);
  lay_out(measure);
  const Tensor scratch = empty(like, {measure.used()}, aoti_torch_dtype_uint8());
  Carver carver(scratch.data_ptr());
  lay_out(carver);
  return scratch;
}

}  // namespace openmm_gnn::cuda
