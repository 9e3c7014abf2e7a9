// Tensors through LibTorch's stable C interface, the part that is the same from 2.9 on.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor_struct.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace openmm_gnn {

using torch::stable::Tensor;

// ---- tensors --------------------------------------------------------------------------------------------------------

inline int32_t dtype_of(const Tensor& tensor) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  return dtype;
}

inline bool is_float32(const Tensor& tensor) { return dtype_of(tensor) == aoti_torch_dtype_float32(); }
inline bool is_float64(const Tensor& tensor) { return dtype_of(tensor) == aoti_torch_dtype_float64(); }

// A new tensor on the device of `like`, contents undefined.
inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes, int32_t dtype) {
  int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  std::vector<int64_t> shape(sizes), strides(sizes.size());
  int64_t step = 1;
  for (size_t d = shape.size(); d-- > 0;) {
    strides[d] = step;
    step *= shape[d] > 1 ? shape[d] : 1;
  }
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides.data(),
                                                  dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// ---- checks that need no look at the data ---------------------------------------------------------------------------

inline std::string shape_text(const Tensor& tensor) {
  std::string text = "(";
  for (int64_t d = 0; d < tensor.dim(); ++d) text += (d ? ", " : "") + std::to_string(tensor.size(d));
  return text + ")";
}

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

inline void check(bool condition, const std::string& message) {
  if (!condition) fail(message);
}

}  // namespace openmm_gnn
