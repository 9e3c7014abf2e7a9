// All loops of encoders, compiled once for each instruction set; first what they share: filters read from tables, and sums
// over heads.

#include "base/cpu/matrix_product.inl"
#include "base/cpu/normalized_rows.inl"
#include "encoders/cartesian_tensors.inl"

INLINE Lanes filter(const FilterTable& table, const EdgeFilter& at, int64_t channel) {
  const float* row = table.values + at.row + channel;
  Lanes v = load(row) * at.weight[0];
  for (int m = 1; m < 4; ++m) v += load(row + m * table.channels) * at.weight[m];
  return v;
}

// Each lane becomes the one at its number's exclusive or with `kBit`, a power of two.
template <int kBit>
INLINE Register swapped(const Register& v) {
  Register result;
  for (int lane = 0; lane < kRegisterLanes; ++lane) result[lane] = v[lane ^ kBit];
  return result;
}

template <int kBit, class Half>
INLINE Pair<Half> swapped(const Pair<Half>& v) {
  if constexpr (4 * 2 * kBit == sizeof(v)) return {v.high, v.low};
  else return {swapped<kBit>(v.low), swapped<kBit>(v.high)};
}

// Each lane becomes the sum over its head; heads of `head_width` channels, a power of two up to 16 or a multiple of 16.
INLINE void sum_heads(Lanes* products, int64_t groups, int64_t head_width) {
  for (int64_t g = 0; g < groups; ++g) {
    Lanes v = products[g];
    if (head_width >= 2) v += swapped<1>(v);
    if (head_width >= 4) v += swapped<2>(v);
    if (head_width >= 8) v += swapped<4>(v);
    if (head_width >= 16) v += swapped<8>(v);
    products[g] = v;
  }
  const int64_t span = head_width / 16;
  for (int64_t g = 0; span > 1 && g < groups; g += span) {
    Lanes total = products[g];
    for (int64_t m = 1; m < span; ++m) total += products[g + m];
    for (int64_t m = 0; m < span; ++m) products[g + m] = total;
  }
}

INLINE Lanes activated(Lanes x) { return x * sigmoid(x); }

#include "encoders/cpu/messages.inl"
#include "encoders/cpu/gradients.inl"
#include "encoders/cpu/network.inl"

static const EncoderKernels kernels{
    attention_loop, edge_layer_loop, tensors_loop, atoms_loop<TensorFormula::kScaled>, atoms_loop<TensorFormula::kProduct>,
    atoms_loop<TensorFormula::kSquare>, filters_loop, attention_gradient_loop, attention_direction_loop, tensor_gradient_loop, activate_loop,
    activate_back_loop};
static const AttentionNetworkKernels network_kernels{normalize_loop, normalize_back_loop, multiply_loop, update_loop,
                                                     update_back_loop};
