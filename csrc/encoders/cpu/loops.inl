// All loops of encoders, compiled once for each instruction set; first what they share: filters read from tables, and sums
// over heads.

#include "base/cpu/matrix_product.inl"
#include "encoders/cartesian_tensors.inl"

INLINE Lanes filter(const FilterTable& table, const EdgeFilter& at, int64_t channel) {
  const float* row = table.values + at.row + channel;
  Lanes v = load(row) * at.weight[0];
  for (int m = 1; m < 4; ++m) v += load(row + m * table.channels) * at.weight[m];
  return v;
}

#undef SWAPPED
#define SWAPPED(v, m)                                                                                             \
  __builtin_shufflevector(v, v, 0 ^ m, 1 ^ m, 2 ^ m, 3 ^ m, 4 ^ m, 5 ^ m, 6 ^ m, 7 ^ m, 8 ^ m, 9 ^ m, 10 ^ m, 11 ^ m, \
                          12 ^ m, 13 ^ m, 14 ^ m, 15 ^ m)

// Each lane becomes the sum over its head; heads of `head_width` channels, a power of two up to 16 or a multiple of 16.
INLINE void sum_heads(Lanes* products, int64_t groups, int64_t head_width) {
  for (int64_t g = 0; g < groups; ++g) {
    Lanes v = products[g];
    if (head_width >= 2) v += SWAPPED(v, 1);
    if (head_width >= 4) v += SWAPPED(v, 2);
    if (head_width >= 8) v += SWAPPED(v, 4);
    if (head_width >= 16) v += SWAPPED(v, 8);
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
    atoms_loop<TensorFormula::kSquare>, filters_loop, attention_gradient_loop, tensor_gradient_loop, activate_loop,
    activate_back_loop};
static const AttentionNetworkKernels network_kernels{normalize_loop, normalize_back_loop, multiply_loop, update_loop,
                                                     update_back_loop};
