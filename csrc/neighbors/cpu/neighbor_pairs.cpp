#include "neighbors/cpu/find_pairs.h"
#include "base/cpu/operators.h"
#include "neighbors/cpu/system_of.h"
#include "base/cpu/threads.h"

namespace openmm_gnn {

namespace {

template <typename T>
PairTensors find(const Tensor& positions, const Tensor& box_vectors, const PairQuestion& question, bool geometry) {
  PairFinder<T>& finder = pair_finder<T>();
  const int64_t count = finder.count(system_of<T>(positions, box_vectors), question, !geometry);
  const int32_t dtype = dtype_of(positions);
  const int64_t rows = geometry ? count : 0;
  PairTensors result{empty(positions, {2, count}, aoti_torch_dtype_int64()),
                     empty(positions, {geometry ? 0 : count, 3}, aoti_torch_dtype_int32()),
                     empty(positions, {rows, 3}, dtype), empty(positions, {rows}, dtype)};
  int64_t* pairs = large_data<int64_t>(result.pairs);
  if (geometry) {
    finder.write_geometry(pairs, pairs + count, large_data<T>(result.vectors), large_data<T>(result.distances));
  } else {
    finder.write_shifts(pairs, pairs + count, large_data<int32_t>(result.shifts));
  }
  return result;
}

}  // namespace

PairTensors neighbor_pairs_cpu(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full,
                               bool geometry, int64_t num_threads) {
  check_system(positions, box_vectors, cutoff);
  const PairQuestion question{cutoff, full, useful_threads(num_threads, positions.size(0))};
  return is_float32(positions) ? find<float>(positions, box_vectors, question, geometry)
                               : find<double>(positions, box_vectors, question, geometry);
}

}  // namespace openmm_gnn
