// Checks of tensor arguments and the current stream, for the operators whose indices are not looked at: that would mean
// to wait for the device. They come from our own list, which gives none that is out of range.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "base/arguments.h"
#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

using torch::stable::accelerator::DeviceGuard;

inline void check_num_pairs(int64_t count) {
  check(count < (int64_t(1) << 30), "more than 2^30 pairs: give fewer, or lower max_neighbors");
}

inline void check_num_atoms(int64_t num_atoms) {
  check(num_atoms >= 0 && num_atoms < (int64_t(1) << 30),
        "num_atoms is " + std::to_string(num_atoms) + ": give 0 to 2^30 - 1");
}

inline void* stream_of_device(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

// Shape, where a negative size is any, type, layout and device of an argument.
inline void check_argument(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes, int32_t dtype,
                           const Tensor& like) {
  bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
  std::string expected;
  int64_t d = 0;
  for (const int64_t size : sizes) {
    expected += (d > 0 ? ", " : "") + (size < 0 ? "any" : std::to_string(size));
    if (same && size >= 0 && tensor.size(d) != size) same = false;
    ++d;
  }
  if (!same) fail(std::string(name) + " has shape " + shape_text(tensor) + ": expected (" + expected + ")");
  const char* integer = dtype == aoti_torch_dtype_int32() ? "int32" : "int64";
  const char* type = dtype == aoti_torch_dtype_float32() ? "float32" : integer;
  check(dtype_of(tensor) == dtype && tensor.is_contiguous(), std::string(name) + " must be " + type + " and contiguous");
  check(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(),
        std::string(name) + " and pairs are on different devices: move one of them");
}

inline void check_floats(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes,
                         const Tensor& like) {
  check_argument(tensor, name, sizes, aoti_torch_dtype_float32(), like);
}

inline void check_pairs(const Tensor& pairs) {
  check(pairs.dim() == 2 && pairs.size(0) == 2 && dtype_of(pairs) == aoti_torch_dtype_int64() && pairs.is_contiguous(),
        "pairs has shape " + shape_text(pairs) + ": give (2, number of pairs), int64 and contiguous");
  check(pairs.size(1) < (int64_t(1) << 30), "more than 2^30 pairs: give fewer, or lower max_neighbors");
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

inline Tensor floats_like(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return empty(like, sizes, aoti_torch_dtype_float32());
}

}  // namespace openmm_gnn::cuda
