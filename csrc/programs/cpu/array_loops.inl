// The operations of array_program.h, compiled once for each instruction set.

#include "base/cpu/matrix_product.inl"

// ---- places ---------------------------------------------------------------------------------------------------------

// Calls body(offsets) for each place of the first `dimensions`; offsets are those of the operands.
template <int kOperands, typename Body>
INLINE void for_places(const ArrayInstruction& in, int dimensions, const Body& body) {
  int64_t at[kMostDimensions] = {}, offsets[kOperands] = {};
  while (true) {
    body(offsets);
    int d = dimensions - 1;
    for (; d >= 0; --d) {
      if (++at[d] < in.sizes[d]) {
        for (int k = 0; k < kOperands; ++k) offsets[k] += in.strides[k][d];
        break;
      }
      for (int k = 0; k < kOperands; ++k) offsets[k] -= (in.sizes[d] - 1) * in.strides[k][d];
      at[d] = 0;
    }
    if (d < 0) return;
  }
}

INLINE Lanes load_some(const float* from, int64_t stride, int64_t count) {
  if (stride == 1 && count >= 16) return load(from);
  if (stride == 0) return fill(*from);
  float some[16];
  for (int64_t k = 0; k < 16; ++k) some[k] = from[stride * (k < count ? k : 0)];
  return load(some);
}

INLINE void store_some(float* to, int64_t stride, int64_t count, const Lanes& v) {
  if (stride == 1 && count >= 16) return store(to, v);
  float some[16];
  store(some, v);
  for (int64_t k = 0; k < count && k < 16; ++k) to[stride * k] = some[k];
}

template <typename Body>
INLINE Lanes each(const Lanes& a, const Lanes& b, const Lanes& c, const Body& body) {
  float first[16], second[16], third[16];
  store(first, a);
  store(second, b);
  store(third, c);
  for (int k = 0; k < 16; ++k) first[k] = body(first[k], second[k], third[k]);
  return load(first);
}

// The result at each place of an operation on up to three numbers.
template <int kArguments, typename Body>
static void at_each_place(const ArrayInstruction& in, const Body& body) {
  const int last = in.dimensions - 1;
  const int64_t count = in.sizes[last];
  int64_t step[4] = {};
  for (int k = 0; k <= kArguments; ++k) step[k] = in.strides[k][last];
  for_places<kArguments + 1>(in, last, [&](const int64_t* offsets) {
    for (int64_t c = 0; c < count; c += 16) {
      Lanes v[3] = {fill(0.f), fill(0.f), fill(0.f)};
      for (int k = 0; k < kArguments; ++k) {
        v[k] = load_some(in.at[k + 1] + offsets[k + 1] + c * step[k + 1], step[k + 1], count - c);
      }
      store_some(in.at[0] + offsets[0] + c * step[0], step[0], count - c, body(v[0], v[1], v[2]));
    }
  });
}

// ---- rows -----------------------------------------------------------------------------------------------------------

static void sum_places(const ArrayInstruction& in) {
  const int last = in.dimensions - 1;
  const int64_t count = in.sizes[last], to_step = in.strides[0][last], step = in.strides[1][last];
  for_places<2>(in, last, [&](const int64_t* offsets) {
    float* to = in.at[0] + offsets[0];
    const float* from = in.at[1] + offsets[1];
    if (to_step == 0) {
      float total = 0;
      for (int64_t k = 0; k < count; ++k) total += from[step * k];
      *to += total;
    } else {
      for (int64_t k = 0; k < count; ++k) to[to_step * k] += from[step * k];
    }
  });
}

// A matrix as linear_map takes it: its own numbers, or a copy of them with rows filled up by zeros to `columns`.
INLINE const float* packed(const float* from, int64_t rows, int64_t width, int64_t row_step, int64_t step, int64_t columns,
                           float*& scratch) {
  if (step == 1 && row_step == columns) return from;
  float* to = scratch;
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t k = 0; k < width; ++k) to[columns * m + k] = from[row_step * m + step * k];
    for (int64_t k = width; k < columns; ++k) to[columns * m + k] = 0.f;
  }
  scratch += rows * columns;
  return to;
}

static void multiply_matrices(const ArrayInstruction& in, std::vector<float>& scratch) {
  const int64_t m = in.sizes[1], k = in.sizes[2], n = in.sizes[3], columns = (n + 15) / 16 * 16;
  scratch.resize(static_cast<size_t>(m * k + k * columns + columns + m * columns));
  for (int64_t b = 0; b < in.sizes[0]; ++b) {
    float* free = scratch.data();
    float* const to = in.at[0] + b * in.strides[0][0];
    const float* rows = packed(in.at[1] + b * in.strides[1][0], m, k, in.strides[1][1], in.strides[1][2], k, free);
    const float* weight = packed(in.at[2] + b * in.strides[2][0], k, n, in.strides[2][2], in.strides[2][3], columns, free);
    float* bias = free;
    for (int64_t c = 0; c < columns; ++c) bias[c] = in.operands > 3 && c < n ? in.at[3][c * in.strides[3][3]] : 0.f;
    float* result = n == columns ? to : bias + columns;
    linear_map(rows, m, k, weight, bias, columns, result);
    for (int64_t r = 0; n != columns && r < m; ++r) std::memcpy(to + n * r, result + columns * r, sizeof(float) * n);
  }
}

static void normalize_rows(const ArrayInstruction& in) {
  const int64_t count = in.sizes[0], width = in.sizes[1];
  const float *gain = in.at[4], *bias = in.at[5];
  const float epsilon = static_cast<float>(static_cast<double>(in.rows[0]) * 1e-12);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = in.at[3] + i * in.strides[3][0];
    float* to = in.at[0] + i * in.strides[0][0];
    float total = 0, squares = 0;
    for (int64_t c = 0; c < width; ++c) total += row[c];
    const float mean = total / static_cast<float>(width);
    for (int64_t c = 0; c < width; ++c) squares += (row[c] - mean) * (row[c] - mean);
    const float scale = 1.f / std::sqrt(squares / static_cast<float>(width) + epsilon);
    for (int64_t c = 0; c < width; ++c) to[c] = (row[c] - mean) * scale * gain[c] + bias[c];
    in.at[1][i * in.strides[1][0]] = mean;
    in.at[2][i * in.strides[2][0]] = scale;
  }
}

static void normalize_rows_back(const ArrayInstruction& in) {
  const int64_t count = in.sizes[0], width = in.sizes[1];
  const float* gain = in.at[5];
  for (int64_t i = 0; i < count; ++i) {
    const float *from = in.at[1] + i * in.strides[1][0], *row = in.at[2] + i * in.strides[2][0];
    const float mean = in.at[3][i * in.strides[3][0]], scale = in.at[4][i * in.strides[4][0]];
    float* to = in.at[0] + i * in.strides[0][0];
    float plain = 0, along = 0;
    for (int64_t c = 0; c < width; ++c) {
      const float g = from[c] * gain[c];
      plain += g;
      along += g * (row[c] - mean) * scale;
    }
    plain /= static_cast<float>(width);
    along /= static_cast<float>(width);
    for (int64_t c = 0; c < width; ++c) {
      to[c] = (from[c] * gain[c] - plain - (row[c] - mean) * scale * along) * scale;
    }
  }
}

static void softmax_rows(const ArrayInstruction& in) {
  const int last = in.dimensions - 1;
  const int64_t count = in.sizes[last], to_step = in.strides[0][last], step = in.strides[1][last];
  for_places<2>(in, last, [&](const int64_t* offsets) {
    float* to = in.at[0] + offsets[0];
    const float* from = in.at[1] + offsets[1];
    float highest = from[0], total = 0;
    for (int64_t k = 1; k < count; ++k) highest = from[step * k] > highest ? from[step * k] : highest;
    for (int64_t k = 0; k < count; ++k) total += to[to_step * k] = std::exp(from[step * k] - highest);
    for (int64_t k = 0; k < count; ++k) to[to_step * k] /= total;
  });
}

static void softmax_rows_back(const ArrayInstruction& in) {
  const int last = in.dimensions - 1;
  const int64_t count = in.sizes[last];
  const int64_t steps[3] = {in.strides[0][last], in.strides[1][last], in.strides[2][last]};
  for_places<3>(in, last, [&](const int64_t* offsets) {
    const float *gradient = in.at[1] + offsets[1], *result = in.at[2] + offsets[2];
    float total = 0;
    for (int64_t k = 0; k < count; ++k) total += gradient[steps[1] * k] * result[steps[2] * k];
    for (int64_t k = 0; k < count; ++k) {
      in.at[0][offsets[0] + steps[0] * k] = (gradient[steps[1] * k] - total) * result[steps[2] * k];
    }
  });
}

// The dimensions behind the first are those of a row.
template <bool kAdds>
static void listed_rows(const ArrayInstruction& in) {
  const int64_t to_row = in.strides[0][0], row = in.strides[1][0];
  ArrayInstruction one = in;
  static const int64_t single = 1, none = 0;
  one.dimensions = in.dimensions > 1 ? in.dimensions - 1 : 1;
  one.sizes = in.dimensions > 1 ? in.sizes + 1 : &single;
  for (int k = 0; k < 2; ++k) one.strides[k] = in.dimensions > 1 ? in.strides[k] + 1 : &none;
  for (int64_t m = 0; m < in.sizes[0]; ++m) {
    one.at[0] = in.at[0] + to_row * (kAdds ? in.rows[m] : m);
    one.at[1] = in.at[1] + row * (kAdds ? m : in.rows[m]);
    if (kAdds) sum_places(one);
    else at_each_place<1>(one, [](const Lanes& a, const Lanes&, const Lanes&) { return a; });
  }
}

// ---- all of them ----------------------------------------------------------------------------------------------------

// Each lane of `a` where x is below the limit, else of `b`.
INLINE Register choose(const Register& x, float limit, const Register& a, const Register& b) {
  return x < Register{} + limit ? a : b;
}

template <class Half>
INLINE Pair<Half> choose(const Pair<Half>& x, float limit, const Pair<Half>& a, const Pair<Half>& b) {
  return {choose(x.low, limit, a.low, b.low), choose(x.high, limit, a.high, b.high)};
}

// The error function, absolute error below 1e-7: for |x| < 0.8 a polynomial of x^2 that was fitted to erf(x) / x - 1, and
// beyond one of |x| that was fitted to ln(1 - erf |x|). From |x| = 4 on it is 1 in float32.
INLINE Lanes error_function(const Lanes& x) {
  const Lanes size = -larger(-larger(x, -x), fill(-4.f)), square = size * size;
  Lanes near = square * -6.54670674e-4f + 5.08697756e-3f;
  near = near * square - 2.68218497e-2f;
  near = near * square + 1.12831369e-1f;
  near = near * square - 3.76126033e-1f;
  near = near * square + 1.28379164e-1f;
  Lanes far = size * 2.09275086e-4f - 3.16940801e-3f;
  far = far * size + 2.27115887e-2f;
  far = far * size - 1.04899342e-1f;
  far = far * size - 6.36122037e-1f;
  far = far * size - 1.12828038f;
  far = far * size - 5.52154716e-5f;
  const Lanes found = choose(size, 0.8f, size + size * near, 1.f - exponential(far));
  return choose(x, 0.f, -found, found);
}

INLINE Lanes gelu_of(const Lanes& x) { return x * 0.5f * (error_function(x * 0.70710678f) + 1.f); }

INLINE Lanes gelu_slope(const Lanes& x) {
  const Lanes density = exponential(larger(x * x * -0.5f, fill(-87.f))) * 0.39894228f;
  return (error_function(x * 0.70710678f) + 1.f) * 0.5f + x * density;
}

static void run_instruction(const ArrayInstruction& in, std::vector<float>& scratch) {
  switch (in.operation) {
    case ArrayOperation::kCopy:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes&, const Lanes&) { return a; });
    case ArrayOperation::kAdd:
      return at_each_place<3>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) { return a + b * c; });
    case ArrayOperation::kMultiply:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return a * b; });
    case ArrayOperation::kDivide:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return a / b; });
    case ArrayOperation::kLarger:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return larger(a, b); });
    case ArrayOperation::kSmaller:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return -larger(-a, -b); });
    case ArrayOperation::kSquareRoot:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float, float) { return std::sqrt(x); });
      });
    case ArrayOperation::kPower:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float y, float) { return std::pow(x, y); });
      });
    case ArrayOperation::kExponential:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float, float) { return std::exp(x); });
      });
    case ArrayOperation::kSigmoid:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes&, const Lanes&) { return sigmoid(a); });
    case ArrayOperation::kSigmoidBack:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return a * b * (1.f - b); });
    case ArrayOperation::kSilu:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes&, const Lanes&) { return silu(a).value; });
    case ArrayOperation::kSiluBack:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return a * silu(b).slope; });
    case ArrayOperation::kGelu:
      return at_each_place<1>(in, [](const Lanes& a, const Lanes&, const Lanes&) { return gelu_of(a); });
    case ArrayOperation::kGeluBack:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes&) { return a * gelu_slope(b); });
    case ArrayOperation::kThresholdBack:
      return at_each_place<3>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float g, float x, float most) { return x > most ? g : 0.f; });
      });
    case ArrayOperation::kWhere:
      return at_each_place<3>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float y, float z) { return x != 0.f ? y : z; });
      });
    case ArrayOperation::kEqual:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float y, float) { return x == y ? 1.f : 0.f; });
      });
    case ArrayOperation::kLess:
      return at_each_place<2>(in, [](const Lanes& a, const Lanes& b, const Lanes& c) {
        return each(a, b, c, [](float x, float y, float) { return x < y ? 1.f : 0.f; });
      });
    case ArrayOperation::kSum: return sum_places(in);
    case ArrayOperation::kProduct: return multiply_matrices(in, scratch);
    case ArrayOperation::kNormalize: return normalize_rows(in);
    case ArrayOperation::kNormalizeBack: return normalize_rows_back(in);
    case ArrayOperation::kSoftmax: return softmax_rows(in);
    case ArrayOperation::kSoftmaxBack: return softmax_rows_back(in);
    case ArrayOperation::kTakeRows: return listed_rows<false>(in);
    case ArrayOperation::kAddRows: return listed_rows<true>(in);
    case ArrayOperation::kCount: return;
  }
}

static const ArrayKernels kernels{run_instruction};
