// What the loops of encoders share: filters read from tables, and sums over heads; compiled once for each instruction set.

// Where a place lies in a table: four rows and their weights.
struct Knot {
  const float* row;
  int64_t channels;
  float weight[4];
};

INLINE Knot find_knot(const FilterTable& table, double place) {
  const double last = static_cast<double>(table.knots - 1);
  place = place > 0 ? place : 0;  // also NaN
  place = place < last ? place : last;
  int64_t k = static_cast<int64_t>(place);
  k = k < table.knots - 2 ? k : table.knots - 2;
  const float t = static_cast<float>(place - static_cast<double>(k)), s = 1.f - t;
  return {table.values + 2 * k * table.channels,
          table.channels,
          {(1.f + 2.f * t) * s * s, t * s * s, t * t * (3.f - 2.f * t), -t * t * s}};
}

INLINE Lanes filter(const Knot& knot, int64_t channel) {
  const float* row = knot.row + channel;
  Lanes v = load(row) * knot.weight[0];
  for (int m = 1; m < 4; ++m) v += load(row + m * knot.channels) * knot.weight[m];
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
