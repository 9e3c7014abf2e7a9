#include <algorithm>
#include <memory>
#include <sstream>
#include <vector>

#include "neighbors/lattice.h"
#include "neighbors/pair_rules.h"
#include "neighbors/cpu/find_pairs.h"
#include "neighbors/cpu/list_filter.h"
#include "base/cpu/operators.h"
#include "neighbors/cpu/system_of.h"
#include "base/cpu/threads.h"

namespace openmm_gnn {

namespace {

// The arrays behind the state tensors.
template <typename T>
struct State {
  T* reference;
  T* box;
  int32_t *stored_i, *stored_j, *stored_shifts;
  int64_t* status;
  int64_t capacity;
};

template <typename T>
State<T> state_of(const ListState& state) {
  const int64_t capacity = state.stored_pairs.size(1);
  int32_t* pairs = data<int32_t>(state.stored_pairs);
  return State<T>{data<T>(state.reference_positions), data<T>(state.reference_box), pairs, pairs + capacity,
                  data<int32_t>(state.stored_shifts), data<int64_t>(state.status), capacity};
}

void check_state(const Tensor& positions, const ListState& state) {
  const auto shaped = [](const Tensor& tensor, int64_t rows, int64_t columns) {
    return tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == columns && tensor.is_contiguous();
  };
  check(shaped(state.reference_positions, positions.size(0), 3) && shaped(state.reference_box, 3, 3) &&
            dtype_of(state.reference_positions) == dtype_of(positions) &&
            dtype_of(state.reference_box) == dtype_of(positions),
        "the state of the neighbour list was made for another number of atoms or dtype: allocate it anew");
  check(state.stored_pairs.dim() == 2 && shaped(state.stored_pairs, 2, state.stored_pairs.size(1)) &&
            shaped(state.stored_shifts, state.stored_pairs.size(1), 3) &&
            dtype_of(state.stored_pairs) == aoti_torch_dtype_int32() &&
            dtype_of(state.stored_shifts) == aoti_torch_dtype_int32(),
        "stored_pairs must be (2, capacity) and stored_shifts (capacity, 3), int32 and contiguous");
  check(state.status.dim() == 1 && state.status.size(0) == kStatusSlots && state.status.is_contiguous() &&
            dtype_of(state.status) == aoti_torch_dtype_int64(),
        "status must be (8,) int64");
}

template <typename T>
bool same_box(const System<T>& system, const T* reference) {
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) {
      const T value = system.box ? system.box[k * system.box_row_stride + d * system.box_column_stride] : T(0);
      if (!(value == reference[3 * k + d])) return false;
    }
  }
  return true;
}

// Follows every atom from its reference. False as soon as one has moved too far for the stored pairs.
template <typename T>
bool track(const System<T>& system, const Lattice& lattice, const T* reference, T skin, Tracked<T>& tracked) {
  const int64_t n = system.num_atoms, step = system.component_stride;
  T *x = tracked.x.reserve(n), *y = tracked.y.reserve(n), *z = tracked.z.reserve(n);
  int32_t* jump = tracked.jump.reserve(3 * n);
  for (int64_t a = 0; a < n; ++a) {
    const T* p = system.atom(a);
    const T raw[3] = {p[0], p[step], p[2 * step]};
    const Displacement<T> moved = displacement_since(lattice, raw, reference + 3 * a);
    if (has_moved(moved.squared, skin)) return false;
    x[a] = moved.unwrapped[0];
    y[a] = moved.unwrapped[1];
    z[a] = moved.unwrapped[2];
    for (int d = 0; d < 3; ++d) jump[3 * a + d] = moved.jump[d];
  }
  return true;
}

// Finds the stored pairs anew, with the present positions as reference.
template <typename T>
void rebuild(const System<T>& system, const PairQuestion& question, const State<T>& state, Tracked<T>& tracked) {
  state.status[kStatusValid] = 0;
  PairFinder<T>& finder = pair_finder<T>();
  const int64_t required = finder.count(system, question, true);
  state.status[kStatusRequired] = required;
  if (required > state.capacity) {
    // A full list holds each pair twice, and its capacity is twice that of a half list.
    const int64_t per_unit = std::max<int64_t>(system.num_atoms, 1) * (question.full ? 2 : 1);
    std::ostringstream text;
    text << "found " << required << " neighbour pairs of " << system.num_atoms << " atoms within cutoff + skin = "
         << question.cutoff << ", capacity " << state.capacity << ": raise max_neighbors to at least "
         << (required + per_unit - 1) / per_unit;
    throw std::runtime_error(text.str());
  }
  finder.write_shifts(state.stored_i, state.stored_j, state.stored_shifts);
  const int64_t n = system.num_atoms, step = system.component_stride;
  T *x = tracked.x.reserve(n), *y = tracked.y.reserve(n), *z = tracked.z.reserve(n);
  int32_t* jump = tracked.jump.reserve(3 * n);
  for (int64_t a = 0; a < n; ++a) {
    const T* p = system.atom(a);
    state.reference[3 * a] = x[a] = p[0];
    state.reference[3 * a + 1] = y[a] = p[step];
    state.reference[3 * a + 2] = z[a] = p[2 * step];
  }
  std::fill(jump, jump + 3 * n, 0);
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) {
      state.box[3 * k + d] = system.box ? system.box[k * system.box_row_stride + d * system.box_column_stride] : T(0);
    }
  }
  state.status[kStatusStored] = required;
  state.status[kStatusValid] = 1;
  ++state.status[kStatusRebuilds];
}

template <typename T>
StoredPairs<T> stored_pairs(const State<T>& state, const Tracked<T>& tracked, double cutoff) {
  const T limit = static_cast<T>(cutoff);
  return {state.stored_i, state.stored_j, state.stored_shifts, state.status[kStatusStored],
          &tracked,       state.box,      limit * limit};
}

// Room for `pairs` pairs, with vectors and distances or with shifts.
PairTensors new_pairs(const Tensor& positions, int64_t pairs, bool geometry) {
  const int64_t measured = geometry ? pairs : 0;
  return PairTensors{empty(positions, {2, pairs}, aoti_torch_dtype_int64()),
                     empty(positions, {pairs - measured, 3}, aoti_torch_dtype_int32()),
                     empty(positions, {measured, 3}, dtype_of(positions)),
                     empty(positions, {measured}, dtype_of(positions))};
}

// The pairs within the cutoff. Each thread looks through a contiguous part, so the order is that of the stored pairs.
template <typename T>
PairTensors trimmed(const Tensor& positions, const State<T>& state, const Tracked<T>& tracked, double cutoff,
                    bool geometry, int num_threads) {
  thread_local std::vector<std::unique_ptr<ClosePairs<T>>> kept;
  std::vector<std::unique_ptr<ClosePairs<T>>>& parts = kept;  // the caller's, also in the other threads
  while (parts.size() < static_cast<size_t>(num_threads)) parts.push_back(std::make_unique<ClosePairs<T>>());
  const StoredPairs<T> stored = stored_pairs(state, tracked, cutoff);
  for_parts(num_threads, stored.count, [&](int thread, int64_t begin, int64_t end) {
    filter_pairs(stored, begin, end, *parts[static_cast<size_t>(thread)]);
  });
  std::vector<int64_t> starts(static_cast<size_t>(num_threads) + 1, 0);
  for (size_t part = 0; part + 1 < starts.size(); ++part) starts[part + 1] = starts[part] + parts[part]->count;

  const int64_t count = starts.back();
  PairTensors result = new_pairs(positions, count, geometry);
  int64_t* pairs = large_data<int64_t>(result.pairs);
  T *vectors = large_data<T>(result.vectors), *distances = large_data<T>(result.distances);
  int32_t* shifts = large_data<int32_t>(result.shifts);
  const int32_t* jump = tracked.jump.get();
  for_parts(num_threads, num_threads, [&](int thread, int64_t, int64_t) {
    const ClosePairs<T>& close = *parts[static_cast<size_t>(thread)];
    const int64_t to = starts[static_cast<size_t>(thread)];
    if (geometry) {
      write_close_pairs(close, pairs + to, pairs + count + to, vectors + 3 * to, distances + to);
      return;
    }
    for (int64_t k = 0; k < close.count; ++k) {
      const int64_t i = close.i[k], j = close.j[k], p = to + k;
      const int32_t* s = state.stored_shifts + 3 * close.place[k];
      pairs[p] = i;
      pairs[count + p] = j;
      for (int d = 0; d < 3; ++d) shifts[3 * p + d] = raw_shift(s[d], jump[3 * i + d], jump[3 * j + d]);
    }
  });
  return result;
}

// All stored pairs, and filling up to the capacity.
template <typename T>
PairTensors padded(const Tensor& positions, const State<T>& state, const Tracked<T>& tracked, double list_cutoff,
                   bool geometry) {
  const int64_t stored = state.status[kStatusStored], capacity = state.capacity;
  PairTensors result = new_pairs(positions, capacity, geometry);
  int64_t* pairs = data<int64_t>(result.pairs);
  std::copy(state.stored_i, state.stored_i + stored, pairs);
  std::copy(state.stored_j, state.stored_j + stored, pairs + capacity);
  std::fill(pairs + stored, pairs + capacity, int64_t(-1));
  std::fill(pairs + capacity + stored, pairs + 2 * capacity, int64_t(-1));
  if (geometry) {
    T *vectors = data<T>(result.vectors), *distances = data<T>(result.distances);
    const T far = static_cast<T>(2 * list_cutoff);
    const StoredPairs<T> all = stored_pairs(state, tracked, list_cutoff);
    for (int64_t k = 0; k < capacity; ++k) {
      T* r = vectors + 3 * k;
      if (k < stored) {
        stored_vector(all, k, r);
      } else {
        r[0] = far;
        r[1] = r[2] = 0;
      }
      distances[k] = std::sqrt(squared_length(r[0], r[1], r[2]));
    }
  } else {
    int32_t* shifts = data<int32_t>(result.shifts);
    const int32_t* jump = tracked.jump.get();
    for (int64_t k = 0; k < stored; ++k) {
      const int64_t i = state.stored_i[k], j = state.stored_j[k];
      for (int d = 0; d < 3; ++d) {
        shifts[3 * k + d] = raw_shift(state.stored_shifts[3 * k + d], jump[3 * i + d], jump[3 * j + d]);
      }
    }
    std::fill(shifts + 3 * stored, shifts + 3 * capacity, 0);
  }
  return result;
}

template <typename T>
PairTensors update(const Tensor& positions, const Tensor& box_vectors, double cutoff, double skin, bool geometry,
                   bool trim, const PairQuestion& list, const ListState& tensors) {
  thread_local Tracked<T> tracked;
  const System<T> system = system_of<T>(positions, box_vectors);
  const State<T> state = state_of<T>(tensors);
  ++state.status[kStatusCalls];
  bool usable = state.status[kStatusValid] != 0 && same_box(system, state.box);
  if (usable) {
    Lattice lattice{};
    if (system.box != nullptr) periodic_lattice(system.box, system.box_row_stride, system.box_column_stride, lattice);
    usable = track(system, lattice, state.reference, static_cast<T>(skin), tracked);
  }
  if (!usable) rebuild(system, list, state, tracked);
  return trim ? trimmed(positions, state, tracked, cutoff, geometry, list.num_threads)
              : padded(positions, state, tracked, list.cutoff, geometry);
}

}  // namespace

PairTensors update_neighbor_list_cpu(const Tensor& positions, const Tensor& box_vectors, double cutoff, double skin,
                                     bool full, bool geometry, bool trim, int64_t num_threads, const ListState& state) {
  check_system(positions, box_vectors, cutoff);
  check_state(positions, state);
  check(skin >= 0 && skin < 1e18, "skin is " + std::to_string(skin) + ": give a finite length, 0 or more");
  const PairQuestion list{cutoff + skin, full, useful_threads(num_threads, positions.size(0))};
  return is_float32(positions)
             ? update<float>(positions, box_vectors, cutoff, skin, geometry, trim, list, state)
             : update<double>(positions, box_vectors, cutoff, skin, geometry, trim, list, state);
}

}  // namespace openmm_gnn
