// Products of a few rows with a matrix, compiled once for each instruction set. kTileRows and kTileGroups are set before:
// rows, and groups of 16 columns, that are summed in registers.

// How a matrix (depth, columns) lies in memory: as rows, or as panels of 16 columns one behind the other, which are read
// in one go.
struct MatrixSteps {
  int64_t row, group;
};

template <int kRows, int kGroups, bool kAdd>
INLINE void product_tile(const float* rows, int64_t depth, const float* weight, const MatrixSteps& step, const float* bias,
                         int64_t columns, float* to) {
  Lanes sums[kRows][kGroups];
  for (int r = 0; r < kRows; ++r) {
    for (int g = 0; g < kGroups; ++g) sums[r][g] = load((kAdd ? to + r * columns : bias) + 16 * g);
  }
  for (int64_t k = 0; k < depth; ++k) {
    Lanes factors[kGroups];
    for (int g = 0; g < kGroups; ++g) factors[g] = load(weight + k * step.row + g * step.group);
    for (int r = 0; r < kRows; ++r) {
      for (int g = 0; g < kGroups; ++g) sums[r][g] += factors[g] * rows[r * depth + k];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int g = 0; g < kGroups; ++g) store(to + r * columns + 16 * g, sums[r][g]);
  }
}

// The rows that are left, fewer than kRows, as one tile: alone, each would wait for its own sums.
template <int kRows, int kGroups, bool kAdd>
INLINE void product_rest(const float* rows, int64_t count, int64_t depth, const float* weight, const MatrixSteps& step,
                         const float* bias, int64_t columns, float* to) {
  if constexpr (kRows > 1) {
    if (count < kRows - 1) {
      return product_rest<kRows - 1, kGroups, kAdd>(rows, count, depth, weight, step, bias, columns, to);
    }
    product_tile<kRows - 1, kGroups, kAdd>(rows, depth, weight, step, bias, columns, to);
  }
}

template <int kGroups, bool kAdd>
INLINE void product_columns(const float* rows, int64_t count, int64_t depth, const float* weight, const MatrixSteps& step,
                            const float* bias, int64_t columns, float* to) {
  int64_t r = 0;
  for (; r + kTileRows <= count; r += kTileRows) {
    product_tile<kTileRows, kGroups, kAdd>(rows + r * depth, depth, weight, step, bias, columns, to + r * columns);
  }
  if (r < count) {
    product_rest<kTileRows, kGroups, kAdd>(rows + r * depth, count - r, depth, weight, step, bias, columns,
                                           to + r * columns);
  }
}

template <bool kAdd>
INLINE void product_of_all(const float* rows, int64_t count, int64_t depth, const float* weight, const MatrixSteps& step,
                           const float* bias, int64_t columns, float* to) {
  int64_t c = 0;
  for (; c + 16 * kTileGroups <= columns; c += 16 * kTileGroups) {
    product_columns<kTileGroups, kAdd>(rows, count, depth, weight + c / 16 * step.group, step, bias + c, columns, to + c);
  }
  for (; c < columns; c += 16) {
    product_columns<1, kAdd>(rows, count, depth, weight + c / 16 * step.group, step, bias + c, columns, to + c);
  }
}

// to = rows weight + bias, with `count` rows of `depth` numbers, and the weight (depth, columns) as rows.
static void linear_map(const float* rows, int64_t count, int64_t depth, const float* weight, const float* bias,
                       int64_t columns, float* to) {
  product_of_all<false>(rows, count, depth, weight, {columns, 16}, bias, columns, to);
}

// The same, and the weight as panels.
static void linear_map_of_panels(const float* rows, int64_t count, int64_t depth, const float* weight, const float* bias,
                                 int64_t columns, float* to) {
  product_of_all<false>(rows, count, depth, weight, {16, 16 * depth}, bias, columns, to);
}

// to += rows weight, the weight as panels.
static void add_linear_map_of_panels(const float* rows, int64_t count, int64_t depth, const float* weight, int64_t columns,
                                     float* to) {
  product_of_all<true>(rows, count, depth, weight, {16, 16 * depth}, to, columns, to);
}
