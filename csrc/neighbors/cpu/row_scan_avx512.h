// The inner loops of row_scan.h in AVX-512: 16 float32 or 8 float64 candidates at a time, hits packed by compression.
#pragma once

#include "base/cpu/avx512.h"
#include "neighbors/cpu/row_scan.h"

#ifdef OPENMM_GNN_X86
namespace openmm_gnn {

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
    const bool in_images = row.candidates->shifted;
    if (row.half) return in_images ? count_as<true, true>(row) : count_as<false, true>(row);
    return in_images ? count_as<true, false>(row) : count_as<false, false>(row);
  }

  OPENMM_GNN_AVX512 static int64_t collect(const Row<T>& row, Hits<T>& hits) {
    const bool in_images = row.candidates->shifted;
    if (row.half) return in_images ? collect_as<true, true>(row, hits) : collect_as<false, true>(row, hits);
    return in_images ? collect_as<true, false>(row, hits) : collect_as<false, false>(row, hits);
  }

  OPENMM_GNN_AVX512 static int64_t locate(const Row<T>& row, Hits<T>& hits) {
    const bool in_images = row.candidates->shifted;
    if (row.half) return in_images ? locate_as<true, true>(row, hits) : locate_as<false, true>(row, hits);
    return in_images ? locate_as<true, false>(row, hits) : locate_as<false, false>(row, hits);
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
#endif
