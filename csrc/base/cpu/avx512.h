// The vector instructions of AVX-512, under the same names for float32 (16 lanes) and float64 (8 lanes).
#pragma once

#include "base/cpu/instruction_set.h"

#ifdef OPENMM_GNN_X86
#include <immintrin.h>

#include <cstdint>

#define OPENMM_GNN_AVX512 __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")))
#define OPENMM_GNN_AVX512_INLINE \
  static inline __attribute__((always_inline, target("avx512f,avx512vl,avx512dq,avx512bw,bmi,bmi2,popcnt")))

namespace openmm_gnn {

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
    const Integer steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_add_epi32(_mm512_set1_epi32(first), steps);
  }
  OPENMM_GNN_AVX512_INLINE Mask greater(Integer a, Integer b) { return _mm512_cmpgt_epi32_mask(a, b); }
  OPENMM_GNN_AVX512_INLINE bool all_below(Integer a, Integer limit) { return _mm512_cmpge_epu32_mask(a, limit) == 0; }
  OPENMM_GNN_AVX512_INLINE Integer halve(Integer v) { return _mm512_srli_epi32(v, 1); }
  OPENMM_GNN_AVX512_INLINE Integer pack(Mask m, Integer v) { return _mm512_maskz_compress_epi32(m, v); }
  OPENMM_GNN_AVX512_INLINE Integer load(Mask m, const int32_t* p) { return _mm512_maskz_loadu_epi32(m, p); }
  OPENMM_GNN_AVX512_INLINE Real gather(const float* p, Integer index) { return _mm512_i32gather_ps(index, p, 4); }
  OPENMM_GNN_AVX512_INLINE Real convert(Integer v) { return _mm512_cvtepi32_ps(v); }
  // Every third integer from p on.
  OPENMM_GNN_AVX512_INLINE Integer load_thirds(Mask m, const int32_t* p) {
    const Integer index = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45);
    return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), m, index, p, 4);
  }

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
  OPENMM_GNN_AVX512_INLINE bool all_below(Integer a, Integer limit) { return _mm256_cmpge_epu32_mask(a, limit) == 0; }
  OPENMM_GNN_AVX512_INLINE Integer halve(Integer v) { return _mm256_srli_epi32(v, 1); }
  OPENMM_GNN_AVX512_INLINE Integer pack(Mask m, Integer v) { return _mm256_maskz_compress_epi32(m, v); }
  OPENMM_GNN_AVX512_INLINE Integer load(Mask m, const int32_t* p) { return _mm256_maskz_loadu_epi32(m, p); }
  OPENMM_GNN_AVX512_INLINE Real gather(const double* p, Integer index) { return _mm512_i32gather_pd(index, p, 8); }
  OPENMM_GNN_AVX512_INLINE Real convert(Integer v) { return _mm512_cvtepi32_pd(v); }
  OPENMM_GNN_AVX512_INLINE Integer load_thirds(Mask m, const int32_t* p) {
    const Integer index = _mm256_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21);
    return _mm256_mmask_i32gather_epi32(_mm256_setzero_si256(), m, index, p, 4);
  }

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

}  // namespace openmm_gnn
#endif
