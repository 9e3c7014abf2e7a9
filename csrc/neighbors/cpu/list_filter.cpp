#include "neighbors/cpu/list_filter.h"

#include <cmath>

#include "neighbors/pair_rules.h"
#include "base/cpu/avx512.h"
#include "base/cpu/instruction_set.h"

namespace openmm_gnn {

namespace {

template <typename T>
void filter_portable(const StoredPairs<T>& stored, int64_t begin, int64_t end, ClosePairs<T>& close) {
  int64_t count = 0;
  for (int64_t k = begin; k < end; ++k) {
    T r[3];
    stored_vector(stored, k, r);
    close.x[count] = r[0];
    close.y[count] = r[1];
    close.z[count] = r[2];
    close.i[count] = stored.i[k];
    close.j[count] = stored.j[k];
    close.place[count] = static_cast<int32_t>(k);
    count += squared_length(r[0], r[1], r[2]) < stored.cutoff_squared;
  }
  close.count = count;
}

template <typename T>
void write_portable(const ClosePairs<T>& close, int64_t* i, int64_t* j, T* vectors, T* distances) {
  for (int64_t k = 0; k < close.count; ++k) {
    const T x = close.x[k], y = close.y[k], z = close.z[k];
    i[k] = close.i[k];
    j[k] = close.j[k];
    vectors[3 * k] = x;
    vectors[3 * k + 1] = y;
    vectors[3 * k + 2] = z;
    distances[k] = std::sqrt(squared_length(x, y, z));
  }
}

#ifdef OPENMM_GNN_X86
template <typename T>
OPENMM_GNN_AVX512 void filter_avx512(const StoredPairs<T>& stored, int64_t begin, int64_t end, ClosePairs<T>& close) {
  using V = Vector<T>;
  using Real = typename V::Real;
  using Integer = typename V::Integer;
  const T *x = stored.tracked->x.get(), *y = stored.tracked->y.get(), *z = stored.tracked->z.get();
  Real box[9];
  for (int k = 0; k < 9; ++k) box[k] = V::fill(stored.box[k]);
  const Real limit = V::fill(stored.cutoff_squared);
  const Integer atoms = V::fill(static_cast<int32_t>(stored.num_atoms));
  T nowhere[3];
  int64_t count = 0;
  for (int64_t k = begin; k < end; k += V::kLanes) {
    const int64_t left = end - k;
    const auto lanes = V::first(left < V::kLanes ? left : V::kLanes);
    const Integer i = V::load(lanes, stored.i + k), j = V::load(lanes, stored.j + k);
    if (!(V::all_below(i, atoms) && V::all_below(j, atoms))) {
      for (int64_t pair = k; pair < end; ++pair) stored_vector(stored, pair, nowhere);  // fails at the first one
    }
    const int32_t* s = stored.shifts + 3 * k;
    const Real sx = V::convert(V::load_thirds(lanes, s)), sy = V::convert(V::load_thirds(lanes, s + 1)),
               sz = V::convert(V::load_thirds(lanes, s + 2));
    const Real shift_x = V::add(V::add(V::multiply(sx, box[0]), V::multiply(sy, box[3])), V::multiply(sz, box[6]));
    const Real shift_y = V::add(V::add(V::multiply(sx, box[1]), V::multiply(sy, box[4])), V::multiply(sz, box[7]));
    const Real shift_z = V::add(V::add(V::multiply(sx, box[2]), V::multiply(sy, box[5])), V::multiply(sz, box[8]));
    const Real rx = V::add(V::subtract(V::gather(x, j), V::gather(x, i)), shift_x);
    const Real ry = V::add(V::subtract(V::gather(y, j), V::gather(y, i)), shift_y);
    const Real rz = V::add(V::subtract(V::gather(z, j), V::gather(z, i)), shift_z);
    const Real squared = V::add(V::add(V::multiply(rx, rx), V::multiply(ry, ry)), V::multiply(rz, rz));
    const auto hits = static_cast<typename V::Mask>(V::less(squared, limit) & lanes);
    V::store(close.x.get() + count, V::pack(hits, rx));
    V::store(close.y.get() + count, V::pack(hits, ry));
    V::store(close.z.get() + count, V::pack(hits, rz));
    V::store(close.i.get() + count, V::pack(hits, i));
    V::store(close.j.get() + count, V::pack(hits, j));
    V::store(close.place.get() + count, V::pack(hits, V::count_from(static_cast<int32_t>(k))));
    count += __builtin_popcount(hits);
  }
  close.count = count;
}

template <typename T>
OPENMM_GNN_AVX512 void write_avx512(const ClosePairs<T>& close, int64_t* i, int64_t* j, T* vectors, T* distances) {
  using V = Vector<T>;
  using Real = typename V::Real;
  for (int64_t k = 0; k < close.count; k += V::kLanes) {
    const int64_t left = close.count - k;
    const int64_t count = left < V::kLanes ? left : V::kLanes;
    const Real x = V::load(close.x.get() + k), y = V::load(close.y.get() + k), z = V::load(close.z.get() + k);
    const Real squared = V::add(V::add(V::multiply(x, x), V::multiply(y, y)), V::multiply(z, z));
    V::store_wide(i + k, count, V::load(close.i.get() + k));
    V::store_wide(j + k, count, V::load(close.j.get() + k));
    V::interleave(vectors + 3 * k, count, x, y, z);
    V::store(distances + k, V::first(count), V::root(squared));
  }
}
#endif

}  // namespace

template <typename T>
void filter_pairs(const StoredPairs<T>& stored, int64_t begin, int64_t end, ClosePairs<T>& close) {
  close.x.reserve(end - begin);
  close.y.reserve(end - begin);
  close.z.reserve(end - begin);
  close.i.reserve(end - begin);
  close.j.reserve(end - begin);
  close.place.reserve(end - begin);
#ifdef OPENMM_GNN_X86
  if (instruction_set() == InstructionSet::kAVX512) return filter_avx512(stored, begin, end, close);
#endif
  filter_portable(stored, begin, end, close);
}

template <typename T>
void write_close_pairs(const ClosePairs<T>& close, int64_t* i, int64_t* j, T* vectors, T* distances) {
#ifdef OPENMM_GNN_X86
  if (instruction_set() == InstructionSet::kAVX512) return write_avx512(close, i, j, vectors, distances);
#endif
  write_portable(close, i, j, vectors, distances);
}

template void filter_pairs(const StoredPairs<float>&, int64_t, int64_t, ClosePairs<float>&);
template void filter_pairs(const StoredPairs<double>&, int64_t, int64_t, ClosePairs<double>&);
template void write_close_pairs(const ClosePairs<float>&, int64_t*, int64_t*, float*, float*);
template void write_close_pairs(const ClosePairs<double>&, int64_t*, int64_t*, double*, double*);

}  // namespace openmm_gnn
