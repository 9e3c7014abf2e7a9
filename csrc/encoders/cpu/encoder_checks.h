// What the operators of encoder_messages.h and encoder_gradients.h ask of their tensors.
#pragma once

#include <initializer_list>
#include <string>

#include "base/tensor_access.h"
#include "encoders/cpu/encoder_messages.h"

namespace openmm_gnn {

inline void check_floats(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes) {
  bool good = is_float32(tensor) && tensor.is_contiguous() && tensor.dim() == static_cast<int64_t>(sizes.size());
  std::string expected;
  int64_t d = 0;
  for (const int64_t size : sizes) {
    expected += (d ? ", " : "") + std::to_string(size);
    if (good && tensor.size(d) != size) good = false;
    ++d;
  }
  check(good,
        std::string(name) + " has shape " + shape_text(tensor) + ": give (" + expected + "), float32, contiguous");
}

inline void check_width(int64_t width, int64_t head_width) {
  check(width > 0 && width % 16 == 0 && width / 16 <= kMostEncoderGroups,
        "the width is " + std::to_string(width) + ": give a multiple of 16, at most 1024");
  const bool fits = head_width > 0 && width % head_width == 0 && (head_width % 16 == 0 || 16 % head_width == 0);
  check(fits, "heads of " + std::to_string(head_width) + " channels: give 1, 2, 4, 8 or a multiple of 16");
}

inline void check_places(const Tensor& places, int64_t count) {
  check(is_float64(places) && places.is_contiguous() && places.dim() == 1 && places.size(0) == count,
        "places has shape " + shape_text(places) + ": give (" + std::to_string(count) + "), float64, contiguous");
}

// Row `receiving` of edge_index sums, the other one sends.
inline EncoderEdges checked_edges(const Tensor& index, int64_t receiving, int64_t num_atoms, const Tensor* directions,
                                  const Tensor* envelope, const Tensor* places) {
  check(index.dim() == 2 && index.size(0) == 2 && dtype_of(index) == aoti_torch_dtype_int64() && index.is_contiguous(),
        "edge_index has shape " + shape_text(index) + ": give (2, number of edges), int64 and contiguous");
  const int64_t count = index.size(1);
  const int64_t* atoms = data<int64_t>(index);
  for (int64_t k = 0; k < 2 * count; ++k) {
    if (atoms[k] < 0 || atoms[k] >= num_atoms) {
      fail("edge " + std::to_string(k % count) + " holds atom " + std::to_string(atoms[k]) + ": there are " +
           std::to_string(num_atoms));
    }
  }
  if (directions) check_floats(*directions, "directions", {count, 3});
  if (envelope) check_floats(*envelope, "envelope", {count});
  if (places) check_places(*places, count);
  return {count, atoms + receiving * count, atoms + (1 - receiving) * count,
          directions ? data<float>(*directions) : nullptr, envelope ? data<float>(*envelope) : nullptr,
          places ? data<double>(*places) : nullptr};
}

inline FilterTable filter_table(const Tensor& table, int64_t channels) {
  check_floats(table, "a filter table", {table.size(0), 2, channels});
  check(table.size(0) >= 2, "a filter table needs 2 knots");
  return {data<float>(table), table.size(0), channels};
}

inline AttentionInputs checked_attention(const Tensor& node, const Tensor& vectors, const Tensor& table,
                                         int64_t head_width) {
  check(node.dim() == 2, "node has shape " + shape_text(node) + ": give (number of atoms, 5 width)");
  const int64_t atoms = node.size(0), width = node.size(1) / 5;
  check_width(width, head_width);
  check_floats(node, "node", {atoms, 5 * width});
  check_floats(vectors, "vectors", {atoms, 3, width});
  return {width, head_width, data<float>(node), data<float>(vectors), filter_table(table, 4 * width)};
}

}  // namespace openmm_gnn
