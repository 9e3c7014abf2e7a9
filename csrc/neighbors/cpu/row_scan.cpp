#include "neighbors/cpu/row_scan.h"

#include <cmath>

#include "neighbors/pair_rules.h"
#include "neighbors/cpu/row_scan_avx512.h"


namespace openmm_gnn {

namespace {

// ---- portable: the compiler vectorises the distances, the hits are packed without branches --------------------------

constexpr int64_t kBlock = 16;  // candidates are padded to a multiple of this

template <typename T>
struct Block {
  T x[kBlock], y[kBlock], z[kBlock];
  int32_t accepted[kBlock];
};

template <typename T, bool kShifted>
OPENMM_GNN_HOST_DEVICE void test_block(const Row<T>& row, int64_t begin, Block<T>& block) {
  const Candidates<T>& c = *row.candidates;
  const T *cx = c.x.get() + begin, *cy = c.y.get() + begin, *cz = c.z.get() + begin;
  const T *sx = c.shift_x.get() + begin, *sy = c.shift_y.get() + begin, *sz = c.shift_z.get() + begin;
  const int32_t* key = c.key.get() + begin;
  const int32_t own = row.half ? 2 * row.atom : -1;
  for (int64_t k = 0; k < kBlock; ++k) {
    T x = cx[k] - row.x, y = cy[k] - row.y, z = cz[k] - row.z;
    if (kShifted) {
      x += sx[k];
      y += sy[k];
      z += sz[k];
    }
    block.x[k] = x;
    block.y[k] = y;
    block.z[k] = z;
    block.accepted[k] = (squared_length(x, y, z) < row.cutoff_squared) & (key[k] > own);
  }
}

template <typename T, bool kShifted>
OPENMM_GNN_HOST_DEVICE int64_t count_body(const Row<T>& row) {
  int32_t total = 0;
  Block<T> block;
  for (int64_t begin = 0; begin < row.candidates->count; begin += kBlock) {
    test_block<T, kShifted>(row, begin, block);
    for (int64_t k = 0; k < kBlock; ++k) total += block.accepted[k];
  }
  return total;
}

template <typename T, bool kShifted>
OPENMM_GNN_HOST_DEVICE int64_t collect_body(const Row<T>& row, Hits<T>& hits) {
  int64_t total = 0;
  Block<T> block;
  const int32_t* key = row.candidates->key.get();
  T *hx = hits.x.get(), *hy = hits.y.get(), *hz = hits.z.get();
  int32_t* hj = hits.j.get();
  for (int64_t begin = 0; begin < row.candidates->count; begin += kBlock) {
    test_block<T, kShifted>(row, begin, block);
    for (int64_t k = 0; k < kBlock; ++k) {
      hx[total] = block.x[k];
      hy[total] = block.y[k];
      hz[total] = block.z[k];
      hj[total] = key[begin + k] >> 1;
      total += block.accepted[k];
    }
  }
  return total;
}

template <typename T, bool kShifted>
OPENMM_GNN_HOST_DEVICE int64_t locate_body(const Row<T>& row, Hits<T>& hits) {
  int64_t total = 0;
  Block<T> block;
  int32_t* place = hits.place.get();
  for (int64_t begin = 0; begin < row.candidates->count; begin += kBlock) {
    test_block<T, kShifted>(row, begin, block);
    for (int64_t k = 0; k < kBlock; ++k) {
      place[total] = static_cast<int32_t>(begin + k);
      total += block.accepted[k];
    }
  }
  return total;
}

template <typename T>
OPENMM_GNN_HOST_DEVICE void write_body(const Hits<T>& hits, int64_t count, int64_t i, const GeometryRow<T>& to) {
  const T *hx = hits.x.get(), *hy = hits.y.get(), *hz = hits.z.get();
  const int32_t* hj = hits.j.get();
  for (int64_t k = 0; k < count; ++k) to.i[k] = i;
  for (int64_t k = 0; k < count; ++k) to.j[k] = hj[k];
  for (int64_t k = 0; k < count; ++k) {
    to.vectors[3 * k] = hx[k];
    to.vectors[3 * k + 1] = hy[k];
    to.vectors[3 * k + 2] = hz[k];
  }
  for (int64_t k = 0; k < count; ++k) to.distances[k] = std::sqrt(squared_length(hx[k], hy[k], hz[k]));
}

#define OPENMM_GNN_ROW_KERNELS(NAME, ATTRIBUTE)                                                      \
  template <typename T>                                                                              \
  struct NAME {                                                                                      \
    ATTRIBUTE static int64_t count(const Row<T>& row) {                                              \
      return row.candidates->shifted ? count_body<T, true>(row) : count_body<T, false>(row);         \
    }                                                                                                \
    ATTRIBUTE static int64_t collect(const Row<T>& row, Hits<T>& hits) {                             \
      return row.candidates->shifted ? collect_body<T, true>(row, hits) : collect_body<T, false>(row, hits); \
    }                                                                                                \
    ATTRIBUTE static int64_t locate(const Row<T>& row, Hits<T>& hits) {                              \
      return row.candidates->shifted ? locate_body<T, true>(row, hits) : locate_body<T, false>(row, hits);   \
    }                                                                                                \
    ATTRIBUTE static void write(const Hits<T>& hits, int64_t n, int64_t i, const GeometryRow<T>& to) { \
      write_body<T>(hits, n, i, to);                                                                 \
    }                                                                                                \
    ATTRIBUTE static void gather(Candidates<T>& c, const CellList<T>& cells, int32_t cx, int32_t cy, int32_t cz, \
                                 bool runs) {                                                        \
      runs ? gather_candidates<T, true>(c, cells, cx, cy, cz) : gather_candidates<T, false>(c, cells, cx, cy, cz); \
    }                                                                                                \
    static constexpr RowKernels<T> kernels{&gather, &count, &collect, &locate, &write};                       \
  };

OPENMM_GNN_ROW_KERNELS(Portable, )
#ifdef OPENMM_GNN_X86
OPENMM_GNN_ROW_KERNELS(AVX2, OPENMM_GNN_AVX2)
#endif

}  // namespace

template <typename T>
const RowKernels<T>& row_kernels() {
#ifdef OPENMM_GNN_X86
  if (instruction_set() == InstructionSet::kAVX512) return AVX512<T>::kernels;
  if (instruction_set() == InstructionSet::kAVX2) return AVX2<T>::kernels;
#endif
  return Portable<T>::kernels;
}

template const RowKernels<float>& row_kernels();
template const RowKernels<double>& row_kernels();

}  // namespace openmm_gnn
