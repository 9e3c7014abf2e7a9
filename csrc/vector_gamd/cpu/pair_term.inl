// The loop of pair_term.h; included once for each instruction set, inside a namespace of its own.

using Place = double __attribute__((vector_size(32)));  // x, y, z of one atom

INLINE Place load_place(const double* p) {
  Place v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

INLINE void store_place(double* p, const Place& v) { __builtin_memcpy(p, &v, sizeof(v)); }

// Pairs of one atom follow each other: it stays in registers as long as they do.
static int64_t add_pairs(const FarPairs& pairs, int64_t begin, int64_t end, const PairPolynomials& splines,
                         double* forces, double* energy) {
  const uint32_t atoms = static_cast<uint32_t>(pairs.atoms), kinds = static_cast<uint32_t>(splines.kinds);
  const Place a = load_place(pairs.box[0]), b = load_place(pairs.box[1]), c = load_place(pairs.box[2]);
  double total = 0;
  int64_t k = begin;
  while (k < end) {
    const int32_t i = pairs.first[k];
    if (static_cast<uint32_t>(i) >= atoms) break;
    const Place here = load_place(pairs.places + 4 * i);
    Place force{};
    const int64_t from = k;
    for (; k < end && pairs.first[k] == i; ++k) {
      const int32_t j = pairs.second[k], kind = pairs.kinds[k], *shift = pairs.shifts + 3 * k;
      if (static_cast<uint32_t>(j) >= atoms || static_cast<uint32_t>(kind) >= kinds) break;
      Place r = load_place(pairs.places + 4 * j) - here;
      if ((shift[0] | shift[1] | shift[2]) != 0) {
        r += a * static_cast<double>(shift[0]) + b * static_cast<double>(shift[1]) + c * static_cast<double>(shift[2]);
      }
      const double squared = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
      if (!(squared < pairs.cutoff_squared)) continue;
      const double distance = std::sqrt(squared), place = (distance - splines.start) * splines.inverse_spacing;
      const double inside = place > 0 ? place : 0.;
      int64_t interval = static_cast<int64_t>(inside);
      interval = interval < splines.intervals ? interval : splines.intervals - 1;
      const double t = inside - static_cast<double>(interval);
      const double* p = splines.values + 4 * (kind * splines.intervals + interval);
      const double slope = (p[1] + t * (2 * p[2] + t * (3 * p[3]))) * splines.inverse_spacing;
      total += p[0] + t * (p[1] + t * (p[2] + t * p[3])) + (place < 0 ? slope * (distance - splines.start) : 0.);
      const Place push = r * (slope / (distance > 1e-6 ? distance : 1e-6));
      force += push;
      store_place(forces + 4 * j, load_place(forces + 4 * j) - push);
    }
    store_place(forces + 4 * i, load_place(forces + 4 * i) + force);
    if (k == from || (k < end && pairs.first[k] == i)) break;  // at a pair that cannot be used
  }
  *energy += total;
  return k;
}

static const PairTermKernels kernels{&add_pairs};
