#include "base/cpu/threads.h"
#include "neighbors/cpu/find_pairs.h"
#include "neighbors/cpu/system_of.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kLargeResult = int64_t(1) << 30;

PairResults room_for(int64_t count, const Tensor& positions, double cutoff, bool geometry) {
  const int64_t bytes = count * (16 + (!geometry ? 12 : is_float32(positions) ? 16 : 32));
  try {
    if (bytes < kLargeResult || bytes < free_memory()) return new_pairs(positions, count, geometry);
  } catch (const std::runtime_error&) {
    // The message is the same.
  }
  fail("found " + std::to_string(count) + " pairs of " + std::to_string(positions.size(0)) + " atoms within " +
       std::to_string(cutoff) + ", which take " + gigabytes(bytes) +
       ", more memory than there is: reduce the cutoff, a length in the unit of the positions");
}

template <typename T>
PairResults find(const Tensor& positions, const Tensor& box_vectors, const PairQuestion& question, bool geometry) {
  PairFinder<T>& finder = pair_finder<T>();
  const int64_t count = finder.count(system_of<T>(positions, box_vectors), question, !geometry);
  const PairResults result = room_for(count, positions, question.cutoff, geometry);
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
