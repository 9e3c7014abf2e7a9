// Sixteen float32 lanes as one value, and the activation on them; compiled once for each instruction set.

using Lanes = float __attribute__((vector_size(64)));
using IntegerLanes = int32_t __attribute__((vector_size(64)));

#undef INLINE
#define INLINE static inline __attribute__((always_inline))

INLINE Lanes load(const float* p) {
  Lanes v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

INLINE void store(float* p, Lanes v) { __builtin_memcpy(p, &v, sizeof(v)); }

INLINE void add_to(float* p, Lanes v) { store(p, load(p) + v); }

INLINE Lanes fill(float v) { return Lanes{} + v; }

INLINE float sum(Lanes v) {
  float total = 0;
  for (int lane = 0; lane < 16; ++lane) total += v[lane];
  return total;
}

// exp(x) for x in [-87, 87], relative error below 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
INLINE Lanes exponential(Lanes x) {
  const Lanes shifted = x * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the sum is rounded to a whole number
  const Lanes n = shifted - 12582912.f;
  const Lanes rest = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * rest + 8.3334519073e-3f;
  p = p * rest + 4.1665795894e-2f;
  p = p * rest + 1.6666665459e-1f;
  p = p * rest + 5.0000001201e-1f;
  p = p * rest * rest + rest + 1.f;
  const IntegerLanes power = (__builtin_convertvector(n, IntegerLanes) + 127) << 23;
  Lanes scale;
  __builtin_memcpy(&scale, &power, sizeof(scale));
  return p * scale;
}

INLINE Lanes sigmoid(Lanes x) {
  const Lanes low = fill(-30.f), high = fill(30.f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  return 1.f / (1.f + exponential(-x));
}

// x * sigmoid(x) and its derivative.
struct Activated {
  Lanes value, slope;
};

INLINE Activated silu(const Lanes& x) {
  const Lanes s = sigmoid(x);
  return {x * s, s * (1.f + x * (1.f - s))};
}
