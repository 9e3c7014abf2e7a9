// Tensors through LibTorch's stable C interface, the part that is the same from 2.9 on; and what operators ask of them:
// device, type, layout and shape, in one place and the same words.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor_struct.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
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

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

inline void check(bool condition, const std::string& message) {
  if (!condition) fail(message);
}

inline std::string sizes_text(const int64_t* sizes, int64_t count) {
  std::string text = "(";
  for (int64_t d = 0; d < count; ++d) text += (d ? ", " : "") + (sizes[d] < 0 ? "any" : std::to_string(sizes[d]));
  return text + ")";
}

inline std::string gigabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g GB", static_cast<double>(bytes) / 1e9);
  return text;
}

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
  const int64_t rank = static_cast<int64_t>(shape.size());
  if (aoti_torch_empty_strided(rank, shape.data(), strides.data(), dtype, device_type, device_index, &handle) != 0) {
    fail("there is no memory for a result of shape " + sizes_text(shape.data(), rank) + ", up to " + gigabytes(8 * step));
  }
  return Tensor(handle);
}

inline Tensor floats_like(const Tensor& like, std::initializer_list<int64_t> sizes) {
  return empty(like, sizes, aoti_torch_dtype_float32());
}

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// ---- checks that need no look at the data ---------------------------------------------------------------------------

inline std::string shape_text(const Tensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t d = 0; d < tensor.dim(); ++d) sizes.push_back(tensor.size(d));
  return sizes_text(sizes.data(), tensor.dim());
}

inline void check_num_atoms(int64_t num_atoms) {
  check(num_atoms >= 0 && num_atoms < (int64_t(1) << 30),
        "num_atoms is " + std::to_string(num_atoms) + ": give 0 to 2^30 - 1");
}

struct DtypeText {
  int32_t dtype;
  const char* text;
};

template <typename T>
DtypeText dtype_text() {
  if constexpr (std::is_same_v<T, float>) return {aoti_torch_dtype_float32(), "float32"};
  if constexpr (std::is_same_v<T, double>) return {aoti_torch_dtype_float64(), "float64"};
  if constexpr (std::is_same_v<T, int32_t>) return {aoti_torch_dtype_int32(), "int32"};
  if constexpr (std::is_same_v<T, int64_t>) return {aoti_torch_dtype_int64(), "int64"};
}

inline std::string device_text(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "the CPU";
}

constexpr int64_t kAny = -1;  // size of a dimension that is not asked for

// The arguments of one call. All lie on one device, that of the first tensor.
class CheckedArguments {
 public:
  CheckedArguments(const Tensor& first, const char* name) : first_(first), name_(name) {}

  // The numbers of a contiguous tensor of this shape.
  template <typename T>
  T* get(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes) const {
    bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
    int64_t d = 0;
    for (const int64_t size : sizes) {
      if (same && size != kAny && tensor.size(d) != size) same = false;
      ++d;
    }
    if (!same) {
      fail(std::string(name) + " has shape " + shape_text(tensor) + ": expected " +
           sizes_text(sizes.begin(), static_cast<int64_t>(sizes.size())));
    }
    const DtypeText expected = dtype_text<T>();
    if (dtype_of(tensor) != expected.dtype || !tensor.is_contiguous()) {
      fail(std::string(name) + " must be " + expected.text + " and contiguous");
    }
    check_device(tensor, name);
    return data<T>(tensor);
  }

  // Null instead of no numbers, as an argument that may be left out gives them.
  template <typename T>
  T* get_or_null(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes) const {
    if (tensor.numel() > 0) return get<T>(tensor, name, sizes);
    check_device(tensor, name);
    return nullptr;
  }

  void check_device(const Tensor& tensor, const char* name) const {
    if (tensor.is_cuda() != first_.is_cuda() || tensor.get_device_index() != first_.get_device_index()) {
      fail(std::string(name) + " is on " + device_text(tensor) + " and " + name_ + " on " + device_text(first_) +
           ": move one of them");
    }
  }

 private:
  const Tensor& first_;
  const char* name_;
};

// A dimension that others are derived from: fails for a tensor that has another number of them.
inline int64_t size_of(const Tensor& tensor, const char* name, int64_t dimension, int64_t num_dimensions) {
  if (tensor.dim() != num_dimensions) {
    fail(std::string(name) + " has shape " + shape_text(tensor) + ": expected " + std::to_string(num_dimensions) +
         " dimensions");
  }
  return tensor.size(dimension);
}

// Fails for the first of `count` integers outside [0, limit). It looks at the data: for the CPU alone.
inline void check_below(const int64_t* values, int64_t count, int64_t limit, const char* name) {
  for (int64_t k = 0; k < count; ++k) {
    if (values[k] < 0 || values[k] >= limit) {
      fail(std::string(name) + " " + std::to_string(k) + " is " + std::to_string(values[k]) + ": give 0 to " +
           std::to_string(limit - 1));
    }
  }
}

}  // namespace openmm_gnn
