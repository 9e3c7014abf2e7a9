// The inner loops of row_scan.h in AVX-512: 16 float32 or 8 float64 candidates at a time, hits packed by compression.
#pragma once

#include <immintrin.h>

#include "row_scan.h"

#define OPENMM_GNN_AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")))
#define OPENMM_GNN_AVX512_INLINE \
  static inline __attribute__((always_inline, target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")))

namespace openmm_gnn {

// What differs between the two precisions.
template <typename T>
struct Vector;

template <>
struct Vector<float> {
  using Real = __m512;
  using Integer = __m512i;  // 16 int32
  using Mask = __mmask16;
  static constexpr int64_t kLanes = 16;
  OPENMM_GNN_AVX512_INLINE Real load(const float* p) { return _mm512_loadu_ps(p); }
  OPENMM_GNN_AVX512_INLINE void store(float* p, Real v) { _mm512_storeu_ps(p, v); }
  OPENMM_GNN_AVX512_INLINE void store(float* p, Mask m, Real v) { _mm512_mask_storeu_ps(p, m, v); }
  OPENMM_GNN_AVX512_INLINE Real fill(float v) { return _mm512_set1_ps(v); }
  OPENMM_GNN_AVX512_INLINE Real add(Real a, Real b) { return _mm512_add_ps(a, b); }
  OPENMM_GNN_AVX512_INLINE Real subtract(Real a, Real b) { return _mm512_sub_ps(a, b); }
  OPENMM_GNN_AVX512_INLINE Real multiply(Real a, Real b) { return _mm512_mul_ps(a, b); }
  OPENMM_GNN_AVX512_INLINE Real root(Real a) { return _mm512_sqrt_ps(a); }
  OPENMM_GNN_AVX512_INLINE Mask less(Real a, Real b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  OPENMM_GNN_AVX512_INLINE Real pack(Mask m, Real v) { return _mm512_maskz_compress_ps(m, v); }
  OPENMM_GNN_AVX512_INLINE Integer load(const int32_t* p) { return _mm512_loadu_si512(p); }
  OPENMM_GNN_AVX512_INLINE void store(int32_t* p, Integer v) { _mm512_storeu_si512(p, v); }
  OPENMM_GNN_AVX512_INLINE Integer fill(int32_t v) { return _mm512_set1_epi32(v); }
  OPENMM_GNN_AVX512_INLINE Integer count_from(int32_t first) {
    return _mm512_add_epi32(_mm512_set1_epi32(first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  }
  OPENMM_GNN_AVX512_INLINE Mask greater(Integer a, Integer b) { return _mm512_cmpgt_epi32_mask(a, b); }
  OPENMM_GNN_AVX512_INLINE Integer halve(Integer v) { return _mm512_srli_epi32(v, 1); }
  OPENMM_GNN_AVX512_INLINE Integer pack(Mask m, Integer v) { return _mm512_maskz_compress_epi32(m, v); }

  // Stores x0 y0 z0 x1 y1 z1 ... of the first `count` lanes.
  OPENMM_GNN_AVX512_INLINE void interleave(float* p, int64_t count, Real x, Real y, Real z) {
    // Lane l of output vector v holds component (16 v + l) % 3 of pair (16 v + l) / 3.
    const __m512i xy0 = _mm512_setr_epi32(0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    const __m512i xy1 = _mm512_setr_epi32(21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    const __m512i xy2 = _mm512_setr_epi32(0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    const __m512i z0 = _mm512_setr_epi32(0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0);
    const __m512i z1 = _mm512_setr_epi32(0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 8, 0, 0, 9, 0, 0);
    const __m512i z2 = _mm512_setr_epi32(10, 0, 0, 11, 0, 0, 12, 0, 0, 13, 0, 0, 14, 0, 0, 15);
    const __m512 v0 = _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(x, xy0, y), 0x4924, z0, z);
    const __m512 v1 = _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(x, xy1, y), 0x2492, z1, z);
    const __m512 v2 = _mm512_mask_permutexvar_ps(_mm512_permutex2var_ps(x, xy2, y), 0x9249, z2, z);
    const int64_t values = 3 * count;
    const uint64_t mask = _bzhi_u64(~uint64_t(0), static_cast<unsigned>(values));
    store(p, static_cast<Mask>(mask), v0);
    store(p + 16, static_cast<Mask>(mask >> 16), v1);
    store(p + 32, static_cast<Mask>(mask >> 32), v2);
  }

  OPENMM_GNN_AVX512_INLINE void store_wide(int64_t* p, int64_t count, Integer v) {
    const Mask mask = static_cast<Mask>(_bzhi_u32(0xffff, static_cast<unsigned>(count)));
    _mm512_mask_storeu_epi64(p, static_cast<__mmask8>(mask), _mm512_cvtepi32_epi64(_mm512_castsi512_si256(v)));
    _mm512_mask_storeu_epi64(p + 8, static_cast<__mmask8>(mask >> 8),
                             _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(v, 1)));
  }
  OPENMM_GNN_AVX512_INLINE Mask first(int64_t count) {
    return static_cast<Mask>(_bzhi_u32(0xffff, static_cast<unsigned>(count)));
  }
};

template <>
struct Vector<double> {
  using Real = __m512d;
  using Integer = __m256i;  // 8 int32
  using Mask = __mmask8;
  static constexpr int64_t kLanes = 8;
  OPENMM_GNN_AVX512_INLINE Real load(const double* p) { return _mm512_loadu_pd(p); }
  OPENMM_GNN_AVX512_INLINE void store(double* p, Real v) { _mm512_storeu_pd(p, v); }
  OPENMM_GNN_AVX512_INLINE void store(double* p, Mask m, Real v) { _mm512_mask_storeu_pd(p, m, v); }
  OPENMM_GNN_AVX512_INLINE Real fill(double v) { return _mm512_set1_pd(v); }
  OPENMM_GNN_AVX512_INLINE Real add(Real a, Real b) { return _mm512_add_pd(a, b); }
  OPENMM_GNN_AVX512_INLINE Real subtract(Real a, Real b) { return _mm512_sub_pd(a, b); }
  OPENMM_GNN_AVX512_INLINE Real multiply(Real a, Real b) { return _mm512_mul_pd(a, b); }
  OPENMM_GNN_AVX512_INLINE Real root(Real a) { return _mm512_sqrt_pd(a); }
  OPENMM_GNN_AVX512_INLINE Mask less(Real a, Real b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
  OPENMM_GNN_AVX512_INLINE Real pack(Mask m, Real v) { return _mm512_maskz_compress_pd(m, v); }
  OPENMM_GNN_AVX512_INLINE Integer load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  OPENMM_GNN_AVX512_INLINE void store(int32_t* p, Integer v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  OPENMM_GNN_AVX512_INLINE Integer fill(int32_t v) { return _mm256_set1_epi32(v); }
  OPENMM_GNN_AVX512_INLINE Integer count_from(int32_t first) {
    return _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  OPENMM_GNN_AVX512_INLINE Mask greater(Integer a, Integer b) { return _mm256_cmpgt_epi32_mask(a, b); }
  OPENMM_GNN_AVX512_INLINE Integer halve(Integer v) { return _mm256_srli_epi32(v, 1); }
  OPENMM_GNN_AVX512_INLINE Integer pack(Mask m, Integer v) { return _mm256_maskz_compress_epi32(m, v); }

  OPENMM_GNN_AVX512_INLINE void interleave(double* p, int64_t count, Real x, Real y, Real z) {
    const __m512i xy0 = _mm512_setr_epi64(0, 8, 0, 1, 9, 0, 2, 10);
    const __m512i xy1 = _mm512_setr_epi64(0, 3, 11, 0, 4, 12, 0, 5);
    const __m512i xy2 = _mm512_setr_epi64(13, 0, 6, 14, 0, 7, 15, 0);
    const __m512i z0 = _mm512_setr_epi64(0, 0, 0, 0, 0, 1, 0, 0);
    const __m512i z1 = _mm512_setr_epi64(2, 0, 0, 3, 0, 0, 4, 0);
    const __m512i z2 = _mm512_setr_epi64(0, 5, 0, 0, 6, 0, 0, 7);
    const __m512d v0 = _mm512_mask_permutexvar_pd(_mm512_permutex2var_pd(x, xy0, y), 0x24, z0, z);
    const __m512d v1 = _mm512_mask_permutexvar_pd(_mm512_permutex2var_pd(x, xy1, y), 0x49, z1, z);
    const __m512d v2 = _mm512_mask_permutexvar_pd(_mm512_permutex2var_pd(x, xy2, y), 0x92, z2, z);
    const int64_t values = 3 * count;
    const uint32_t mask = _bzhi_u32(~uint32_t(0), static_cast<unsigned>(values));
    store(p, static_cast<Mask>(mask), v0);
    store(p + 8, static_cast<Mask>(mask >> 8), v1);
    store(p + 16, static_cast<Mask>(mask >> 16), v2);
  }

  OPENMM_GNN_AVX512_INLINE void store_wide(int64_t* p, int64_t count, Integer v) {
    _mm512_mask_storeu_epi64(p, first(count), _mm512_cvtepi32_epi64(v));
  }
  OPENMM_GNN_AVX512_INLINE Mask first(int64_t count) {
    return static_cast<Mask>(_bzhi_u32(0xff, static_cast<unsigned>(count)));
  }
};

template <typename T>
struct AVX512 {
  using V = Vector<T>;
  using Real = typename V::Real;
  using Integer = typename V::Integer;
  using Mask = typename V::Mask;

  // The row's constants in all lanes.
  struct Lanes {
    Real x, y, z, limit;
    Integer own;
  };

  OPENMM_GNN_AVX512_INLINE Lanes spread(const Row<T>& row) {
    return Lanes{V::fill(row.x), V::fill(row.y), V::fill(row.z), V::fill(row.cutoff_squared),
                 V::fill(row.half ? int32_t(2 * row.atom) : int32_t(-1))};
  }

  template <bool kShifted, bool kHalf>
  OPENMM_GNN_AVX512_INLINE Mask test(const Candidates<T>& c, const Lanes& lanes, int64_t k, Real& x, Real& y, Real& z) {
    x = V::subtract(V::load(c.x.get() + k), lanes.x);
    y = V::subtract(V::load(c.y.get() + k), lanes.y);
    z = V::subtract(V::load(c.z.get() + k), lanes.z);
    if (kShifted) {
      x = V::add(x, V::load(c.shift_x.get() + k));
      y = V::add(y, V::load(c.shift_y.get() + k));
      z = V::add(z, V::load(c.shift_z.get() + k));
    }
    const Real squared = V::add(V::add(V::multiply(x, x), V::multiply(y, y)), V::multiply(z, z));
    const Mask close = V::less(squared, lanes.limit);
    return kHalf ? static_cast<Mask>(close & V::greater(V::load(c.key.get() + k), lanes.own)) : close;
  }

  template <bool kShifted, bool kHalf>
  OPENMM_GNN_AVX512_INLINE int64_t count_as(const Row<T>& row) {
    const Candidates<T>& c = *row.candidates;
    const Lanes lanes = spread(row);
    int64_t total = 0;
    Real x, y, z;
    for (int64_t k = 0; k < c.count; k += V::kLanes) {
      total += __builtin_popcount(test<kShifted, kHalf>(c, lanes, k, x, y, z));
    }
    return total;
  }

  template <bool kShifted, bool kHalf>
  OPENMM_GNN_AVX512_INLINE int64_t collect_as(const Row<T>& row, Hits<T>& hits) {
    const Candidates<T>& c = *row.candidates;
    const Lanes lanes = spread(row);
    T *hx = hits.x.get(), *hy = hits.y.get(), *hz = hits.z.get();
    int32_t* hj = hits.j.get();
    int64_t total = 0;
    Real x, y, z;
    for (int64_t k = 0; k < c.count; k += V::kLanes) {
      const Mask close = test<kShifted, kHalf>(c, lanes, k, x, y, z);
      V::store(hx + total, V::pack(close, x));
      V::store(hy + total, V::pack(close, y));
      V::store(hz + total, V::pack(close, z));
      V::store(hj + total, V::pack(close, V::halve(V::load(c.key.get() + k))));
      total += __builtin_popcount(close);
    }
    return total;
  }

  template <bool kShifted, bool kHalf>
  OPENMM_GNN_AVX512_INLINE int64_t locate_as(const Row<T>& row, Hits<T>& hits) {
    const Candidates<T>& c = *row.candidates;
    const Lanes lanes = spread(row);
    int64_t total = 0;
    Real x, y, z;
    for (int64_t k = 0; k < c.count; k += V::kLanes) {
      const Mask close = test<kShifted, kHalf>(c, lanes, k, x, y, z);
      V::store(hits.place.get() + total, V::pack(close, V::count_from(static_cast<int32_t>(k))));
      total += __builtin_popcount(close);
    }
    return total;
  }

  OPENMM_GNN_AVX512 static void gather(Candidates<T>& c, const CellList<T>& cells, int32_t cx, int32_t cy, int32_t cz,
                                       bool runs) {
    runs ? gather_candidates<T, true>(c, cells, cx, cy, cz) : gather_candidates<T, false>(c, cells, cx, cy, cz);
  }

  OPENMM_GNN_AVX512 static int64_t count(const Row<T>& row) {
    if (row.half) return row.candidates->shifted ? count_as<true, true>(row) : count_as<false, true>(row);
    return row.candidates->shifted ? count_as<true, false>(row) : count_as<false, false>(row);
  }

  OPENMM_GNN_AVX512 static int64_t collect(const Row<T>& row, Hits<T>& hits) {
    if (row.half) return row.candidates->shifted ? collect_as<true, true>(row, hits) : collect_as<false, true>(row, hits);
    return row.candidates->shifted ? collect_as<true, false>(row, hits) : collect_as<false, false>(row, hits);
  }

  OPENMM_GNN_AVX512 static int64_t locate(const Row<T>& row, Hits<T>& hits) {
    if (row.half) return row.candidates->shifted ? locate_as<true, true>(row, hits) : locate_as<false, true>(row, hits);
    return row.candidates->shifted ? locate_as<true, false>(row, hits) : locate_as<false, false>(row, hits);
  }

  OPENMM_GNN_AVX512 static void write(const Hits<T>& hits, int64_t total, int64_t i, const GeometryRow<T>& to) {
    const Integer own = V::fill(static_cast<int32_t>(i));
    for (int64_t k = 0; k < total; k += V::kLanes) {
      const int64_t count = total - k < V::kLanes ? total - k : V::kLanes;
      const Real x = V::load(hits.x.get() + k), y = V::load(hits.y.get() + k), z = V::load(hits.z.get() + k);
      const Real squared = V::add(V::add(V::multiply(x, x), V::multiply(y, y)), V::multiply(z, z));
      V::store_wide(to.i + k, count, own);
      V::store_wide(to.j + k, count, V::load(hits.j.get() + k));
      V::interleave(to.vectors + 3 * k, count, x, y, z);
      V::store(to.distances + k, V::first(count), V::root(squared));
    }
  }

  static constexpr RowKernels<T> kernels{&gather, &count, &collect, &locate, &write};
};

}  // namespace openmm_gnn
