// What operators ask of their tensors: device, type, layout and shape, in one place and the same words.
#pragma once

#include <initializer_list>
#include <string>
#include <type_traits>

#include "base/tensor_access.h"

namespace openmm_gnn {

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
    if (!same) fail(std::string(name) + " has shape " + shape_text(tensor) + ": expected " + sizes_text(sizes));
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
  static std::string sizes_text(std::initializer_list<int64_t> sizes) {
    std::string text;
    for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + (size == kAny ? "any" : std::to_string(size));
    return "(" + text + ")";
  }

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

}  // namespace openmm_gnn
