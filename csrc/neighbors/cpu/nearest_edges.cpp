// Of each atom's neighbours the nearest ones: what graph/edges.py does with two sorts of all pairs, atom by atom.
#include <algorithm>
#include <string>
#include <vector>

#include "base/arguments.h"
#include "base/boxed.h"
#include "neighbors/neighbor_pairs.h"

namespace openmm_gnn {

namespace {

// Places in the list "every atom with itself, then the pairs": of each atom itself, then its nearest pairs in order.
template <typename Real>
Tensor nearest_edges(const CheckedArguments& given, const Tensor& pairs, const Tensor& distances, int64_t num_atoms,
                     int64_t most) {
  const int64_t count = pairs.size(1);
  const int64_t *targets = data<int64_t>(pairs), *sources = targets + count;
  const Real* distance = given.get<Real>(distances, "distances", {count});
  for (int64_t k = 0; k < count; ++k) check(distance[k] == distance[k], "distances holds NaN: give lengths");
  std::vector<int64_t> chosen, near;
  chosen.reserve(static_cast<size_t>(num_atoms + std::min(count, num_atoms * std::min(most - 1, count))));
  int64_t pair = 0;
  for (int64_t atom = 0; atom < num_atoms; ++atom) {
    near.clear();
    for (; pair < count && targets[pair] == atom; ++pair) near.push_back(pair);
    const auto nearer = [&](int64_t a, int64_t b) {
      return distance[a] != distance[b] ? distance[a] < distance[b] : sources[a] < sources[b];
    };
    const int64_t kept = std::min<int64_t>(static_cast<int64_t>(near.size()), most - 1);
    std::partial_sort(near.begin(), near.begin() + kept, near.end(), nearer);
    chosen.push_back(atom);
    for (int64_t k = 0; k < kept; ++k) chosen.push_back(num_atoms + near[static_cast<size_t>(k)]);
  }
  check(pair == count, "pairs must be ordered by their first atom, and hold atoms below " + std::to_string(num_atoms));
  const Tensor result = empty(pairs, {static_cast<int64_t>(chosen.size())}, aoti_torch_dtype_int64());
  std::copy(chosen.begin(), chosen.end(), data<int64_t>(result));
  return result;
}

Tensor nearest_edges_cpu(const Tensor& pairs, const Tensor& distances, int64_t num_atoms, int64_t max_neighbors) {
  const CheckedArguments given(pairs, "pairs");
  given.get<int64_t>(pairs, "pairs", {2, kAny});
  check_num_atoms(num_atoms);
  check(max_neighbors >= 1, "max_neighbors is " + std::to_string(max_neighbors) + ": give at least 1");
  return is_float32(distances) ? nearest_edges<float>(given, pairs, distances, num_atoms, max_neighbors)
                               : nearest_edges<double>(given, pairs, distances, num_atoms, max_neighbors);
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kNearestEdges, nearest_edges_cpu>(library);
  define<kFrameEdges>(library);
}

}  // namespace openmm_gnn
