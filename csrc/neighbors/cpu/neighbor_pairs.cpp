#include "base/cpu/threads.h"
#include "neighbors/cpu/find_pairs.h"
#include "neighbors/cpu/system_of.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn {

namespace {

template <typename T>
PairResults find(const Tensor& positions, const Tensor& box_vectors, const PairQuestion& question, bool geometry) {
  PairFinder<T>& finder = pair_finder<T>();
  const int64_t count = finder.count(system_of<T>(positions, box_vectors), question, !geometry);
  const PairResults result = new_pairs(positions, count, geometry);
  const auto& [pairs, shifts, vectors, distances] = result;
  int64_t* atoms = large_data<int64_t>(pairs);
  if (geometry) {
    finder.write_geometry(atoms, atoms + count, large_data<T>(vectors), large_data<T>(distances));
  } else {
    finder.write_shifts(atoms, atoms + count, large_data<int32_t>(shifts));
  }
  return result;
}

PairResults neighbor_pairs_cpu(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full,
                               bool geometry, int64_t num_threads) {
  check_system(positions, box_vectors, cutoff);
  const PairQuestion question{cutoff, full, useful_threads(num_threads, positions.size(0))};
  return is_float32(positions) ? find<float>(positions, box_vectors, question, geometry)
                               : find<double>(positions, box_vectors, question, geometry);
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) { implement<kNeighborPairs, neighbor_pairs_cpu>(library); }

}  // namespace openmm_gnn
