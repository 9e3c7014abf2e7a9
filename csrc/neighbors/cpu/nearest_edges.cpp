// Of each atom's neighbours the nearest ones: what graph/edges.py does with two sorts of all pairs, atom by atom.
#include <algorithm>
#include <string>
#include <vector>

#include "base/tensor_access.h"

namespace openmm_gnn {

namespace {

// Places in the list "every atom with itself, then the pairs": of each atom itself, then its nearest pairs in order.
template <typename Real>
Tensor nearest_edges(const Tensor& pairs, const Tensor& distances, int64_t num_atoms, int64_t most) {
  const int64_t count = pairs.size(1);
  const int64_t *targets = data<int64_t>(pairs), *sources = targets + count;
  const Real* distance = data<Real>(distances);
  std::vector<int64_t> chosen, near;
  chosen.reserve(static_cast<size_t>(std::min(num_atoms * most, num_atoms + count)));
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

void boxed_nearest_edges(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), distances = pop_tensor(stack[1]);
  const int64_t num_atoms = pop_int(stack[2]), most = pop_int(stack[3]);
  check(pairs.dim() == 2 && pairs.size(0) == 2 && dtype_of(pairs) == aoti_torch_dtype_int64() && pairs.is_contiguous(),
        "pairs has shape " + shape_text(pairs) + ": give (2, number of pairs), int64 and contiguous");
  check(distances.dim() == 1 && distances.size(0) == pairs.size(1) && distances.is_contiguous() &&
            (is_float32(distances) || is_float64(distances)),
        "distances has shape " + shape_text(distances) + ": give (number of pairs,), float32 or float64");
  check(most >= 1, "max_neighbors is " + std::to_string(most) + ": give at least 1");
  stack[0] = push_tensor(is_float32(distances) ? nearest_edges<float>(pairs, distances, num_atoms, most)
                                               : nearest_edges<double>(pairs, distances, num_atoms, most));
}

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY_FRAGMENT(openmm_gnn, library) {
  library.def("nearest_edges(Tensor pairs, Tensor distances, int num_atoms, int max_neighbors) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) { library.impl("nearest_edges", &openmm_gnn::boxed_nearest_edges); }
