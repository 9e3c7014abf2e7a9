// Between tensors and the plain C++ below.
#pragma once

#include "base/arguments.h"
#include "base/cpu/buffer.h"
#include "neighbors/cpu/cell_list.h"

namespace openmm_gnn {

// Any strides are taken as they are.
template <typename T>
System<T> system_of(const Tensor& positions, const Tensor& box_vectors) {
  const bool open = box_vectors.size(0) == 0;
  return System<T>{data<const T>(positions),           positions.size(0),     positions.stride(0),
                   positions.stride(1),                open ? nullptr : data<const T>(box_vectors),
                   open ? 0 : box_vectors.stride(0),   open ? 0 : box_vectors.stride(1)};
}

// The data of a fresh output tensor about to be written as a whole.
template <typename T>
T* large_data(const Tensor& tensor) {
  T* pointer = data<T>(tensor);
  const int64_t bytes = tensor.numel() * static_cast<int64_t>(sizeof(T));
  if (bytes >= (int64_t(1) << 22)) advise_huge_pages(pointer, bytes);
  return pointer;
}

}  // namespace openmm_gnn
