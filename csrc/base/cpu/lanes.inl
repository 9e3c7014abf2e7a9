// Sixteen float32 lanes as one value, and the activation on them; compiled once for each instruction set. A vector longer
// than the processor's registers would be kept in memory, so lanes are a register, or pairs of halves of lanes.

#undef INLINE
#define INLINE static inline __attribute__((always_inline))

using Register = float __attribute__((vector_size(4 * kRegisterLanes)));
using IntegerRegister = int32_t __attribute__((vector_size(4 * kRegisterLanes)));

template <class Half>
struct Pair {
  Half low, high;
};

#undef PAIR_OPERATOR
#define PAIR_OPERATOR(op)                                                       \
  template <class Half>                                                         \
  INLINE Pair<Half> operator op(const Pair<Half>& a, const Pair<Half>& b) {     \
    return {a.low op b.low, a.high op b.high};                                  \
  }                                                                             \
  template <class Half>                                                         \
  INLINE Pair<Half> operator op(const Pair<Half>& a, float b) {                 \
    return {a.low op b, a.high op b};                                           \
  }                                                                             \
  template <class Half>                                                         \
  INLINE Pair<Half> operator op(float a, const Pair<Half>& b) {                 \
    return {a op b.low, a op b.high};                                           \
  }                                                                             \
  template <class Half, class Other>                                            \
  INLINE Pair<Half>& operator op##=(Pair<Half>& a, const Other& b) {            \
    return a = a op b;                                                          \
  }

PAIR_OPERATOR(+)
PAIR_OPERATOR(-)
PAIR_OPERATOR(*)
PAIR_OPERATOR(/)

template <class Half>
INLINE Pair<Half> operator-(const Pair<Half>& a) {
  return {-a.low, -a.high};
}

template <int kCount>
struct LanesOf {
  using Half = LanesOf<kCount / 2>;
  using Type = Pair<typename Half::Type>;
  INLINE Type load(const float* p) { return {Half::load(p), Half::load(p + kCount / 2)}; }
  INLINE void store(float* p, const Type& v) {
    Half::store(p, v.low);
    Half::store(p + kCount / 2, v.high);
  }
};

template <>
struct LanesOf<kRegisterLanes> {
  using Type = Register;
  INLINE Type load(const float* p) {
    Type v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  INLINE void store(float* p, const Type& v) { __builtin_memcpy(p, &v, sizeof(v)); }
};

using Lanes = LanesOf<16>::Type;

INLINE Lanes load(const float* p) { return LanesOf<16>::load(p); }

INLINE void store(float* p, const Lanes& v) { LanesOf<16>::store(p, v); }

INLINE void add_to(float* p, const Lanes& v) { store(p, load(p) + v); }

INLINE Lanes fill(float v) { return Lanes{} + v; }

INLINE float sum(const Register& v) {
  float total = 0;
  for (int lane = 0; lane < kRegisterLanes; ++lane) total += v[lane];
  return total;
}

template <class Half>
INLINE float sum(const Pair<Half>& v) {
  return sum(v.low + v.high);
}

// Each lane's larger value; where `a` is not a number, that.
INLINE Register larger(const Register& a, const Register& b) { return b > a ? b : a; }

template <class Half>
INLINE Pair<Half> larger(const Pair<Half>& a, const Pair<Half>& b) {
  return {larger(a.low, b.low), larger(a.high, b.high)};
}

// p times 2^n, where shifted is 1.5 * 2^23 + n: its last bits are n.
INLINE Register times_power_of_two(const Register& p, const Register& shifted) {
  IntegerRegister bits, exponent;
  __builtin_memcpy(&bits, &p, sizeof(bits));
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  bits += exponent << 23;
  Register product;
  __builtin_memcpy(&product, &bits, sizeof(product));
  return product;
}

template <class Half>
INLINE Pair<Half> times_power_of_two(const Pair<Half>& p, const Pair<Half>& shifted) {
  return {times_power_of_two(p.low, shifted.low), times_power_of_two(p.high, shifted.high)};
}

// exp(x) for x in [-87, 87], relative error below 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
INLINE Lanes exponential(const Lanes& x) {
  const Lanes shifted = x * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the sum is rounded to a whole number
  const Lanes n = shifted - 12582912.f;
  const Lanes rest = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = rest * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * rest + 8.3334519073e-3f;
  p = p * rest + 4.1665795894e-2f;
  p = p * rest + 1.6666665459e-1f;
  p = p * rest + 5.0000001201e-1f;
  p = p * rest * rest + rest + 1.f;
  return times_power_of_two(p, shifted);
}

INLINE Lanes sigmoid(const Lanes& x) {
  const Lanes bounded = larger(-larger(x, fill(-30.f)), fill(-30.f));
  return 1.f / (1.f + exponential(bounded));
}

// x * sigmoid(x) and its derivative.
struct Activated {
  Lanes value, slope;
};

INLINE Activated silu(const Lanes& x) {
  const Lanes s = sigmoid(x);
  return {x * s, s * (1.f + x * (1.f - s))};
}
