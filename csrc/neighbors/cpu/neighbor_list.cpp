#include <algorithm>
#include <memory>
#include <sstream>
#include <vector>

#include "base/cpu/threads.h"
#include "neighbors/cpu/find_pairs.h"
#include "neighbors/cpu/neighbor_list.h"
#include "neighbors/cpu/system_of.h"
#include "neighbors/lattice.h"
#include "neighbors/pair_rules.h"

namespace openmm_gnn {

namespace {

template <typename T>
bool same_box(const System<T>& system, const T* reference) {
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) {
      if (!(system.box_element(k, d) == reference[3 * k + d])) return false;
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
void rebuild(const System<T>& system, const PairQuestion& question, const ListState<T>& state) {
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
  finder.write_shifts(state.stored_i(), state.stored_j(), state.stored_shifts);
  for (int64_t a = 0; a < system.num_atoms; ++a) {
    for (int d = 0; d < 3; ++d) state.reference_positions[3 * a + d] = system.atom(a)[d * system.component_stride];
  }
  for (int k = 0; k < 9; ++k) state.reference_box[k] = system.box_element(k / 3, k % 3);
  state.status[kStatusStored] = required;
  state.status[kStatusValid] = 1;
  ++state.status[kStatusRebuilds];
}

// The pairs within the cutoff.
template <typename T>
PairResults trimmed(const Tensor& positions, const ListState<T>& state, const Tracked<T>& tracked, double cutoff,
                    bool geometry, int num_threads) {
  thread_local CloseList<T> kept;
  CloseList<T>& close_list = kept;  // the caller's, also in the other threads
  close_list.find(stored_pairs(state, positions.size(0), tracked, cutoff), num_threads);
  const std::vector<int64_t>& starts = close_list.starts;
  const int64_t count = starts.back();
  const PairResults result = new_pairs(positions, count, geometry);
  int64_t* pairs = large_data<int64_t>(std::get<0>(result));
  int32_t* shifts = large_data<int32_t>(std::get<1>(result));
  T *vectors = large_data<T>(std::get<2>(result)), *distances = large_data<T>(std::get<3>(result));
  const int32_t* jump = tracked.jump.get();
  for_parts(num_threads, num_threads, [&](int thread, int64_t, int64_t) {
    const ClosePairs<T>& close = *close_list.parts[static_cast<size_t>(thread)];
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
PairResults padded(const Tensor& positions, const ListState<T>& state, const Tracked<T>& tracked, double list_cutoff,
                   bool geometry) {
  const int64_t stored = state.status[kStatusStored], capacity = state.capacity;
  const StoredPairs<T> all = stored_pairs(state, positions.size(0), tracked, list_cutoff);
  const PairResults result = new_pairs(positions, capacity, geometry);
  int64_t* pairs = data<int64_t>(std::get<0>(result));
  std::copy(state.stored_i(), state.stored_i() + stored, pairs);
  std::copy(state.stored_j(), state.stored_j() + stored, pairs + capacity);
  std::fill(pairs + stored, pairs + capacity, int64_t(-1));
  std::fill(pairs + capacity + stored, pairs + 2 * capacity, int64_t(-1));
  if (geometry) {
    T *vectors = data<T>(std::get<2>(result)), *distances = data<T>(std::get<3>(result));
    const T far = static_cast<T>(2 * list_cutoff);
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
    int32_t* shifts = data<int32_t>(std::get<1>(result));
    const int32_t* jump = tracked.jump.get();
    T vector[3];
    for (int64_t k = 0; k < stored; ++k) {
      stored_vector(all, k, vector);  // for its look at the atoms
      const int64_t i = state.stored_i()[k], j = state.stored_j()[k];
      for (int d = 0; d < 3; ++d) {
        shifts[3 * k + d] = raw_shift(state.stored_shifts[3 * k + d], jump[3 * i + d], jump[3 * j + d]);
      }
    }
    std::fill(shifts + 3 * stored, shifts + 3 * capacity, 0);
  }
  return result;
}

// A list that two threads ask answers one after the other. Few lists share a lock.
std::mutex& lock_of(const int64_t* status) {
  static std::mutex locks[61];
  return locks[reinterpret_cast<uintptr_t>(status) / 64 % 61];
}

template <typename T>
PairResults update(const ListArguments& in) {
  thread_local Tracked<T> tracked;
  const CurrentList<T> now = current_list(in, tracked);
  return in.trim ? trimmed(in.positions, now.state, tracked, in.cutoff, in.geometry, now.num_threads)
                 : padded(in.positions, now.state, tracked, in.cutoff + in.skin, in.geometry);
}

PairResults update_neighbor_list_cpu(const ListArguments& in) {
  check_system(in.positions, in.box_vectors, in.cutoff);
  return is_float32(in.positions) ? update<float>(in) : update<double>(in);
}

}  // namespace

template <typename T>
CurrentList<T> current_list(const ListArguments& in, Tracked<T>& tracked) {
  const ListState<T> state = checked_state<T>(in);
  CurrentList<T> now{std::unique_lock<std::mutex>(lock_of(state.status)), state,
                     useful_threads(in.num_threads, in.positions.size(0))};
  const int64_t kept = state.status[kStatusStored];
  check(kept >= 0 && kept <= state.capacity, "status says that " + std::to_string(kept) + " pairs are stored, of " +
                                                 std::to_string(state.capacity) + " at most: it belongs to another list");
  const System<T> system = system_of<T>(in.positions, in.box_vectors);
  ++state.status[kStatusCalls];
  Lattice lattice{};
  if (system.box != nullptr) periodic_lattice(system.box, system.box_row_stride, system.box_column_stride, lattice);
  const auto follow = [&] { return track(system, lattice, state.reference_positions, static_cast<T>(in.skin), tracked); };
  if (state.status[kStatusValid] == 0 || !same_box(system, state.reference_box) || !follow()) {
    rebuild(system, {in.cutoff + in.skin, in.full, now.num_threads}, state);
    follow();
  }
  return now;
}

template <typename T>
void CloseList<T>::find(const StoredPairs<T>& stored, int num_threads) {
  while (parts.size() < static_cast<size_t>(num_threads)) parts.push_back(std::make_unique<ClosePairs<T>>());
  for_parts(num_threads, stored.count, [&](int thread, int64_t begin, int64_t end) {
    filter_pairs(stored, begin, end, *parts[static_cast<size_t>(thread)]);
  });
  starts.assign(static_cast<size_t>(num_threads) + 1, 0);
  for (size_t part = 0; part + 1 < starts.size(); ++part) starts[part + 1] = starts[part] + parts[part]->count;
}

template struct CloseList<float>;
template struct CloseList<double>;
template CurrentList<float> current_list(const ListArguments&, Tracked<float>&);
template CurrentList<double> current_list(const ListArguments&, Tracked<double>&);

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kUpdateNeighborList, update_neighbor_list_cpu>(library);
}

}  // namespace openmm_gnn
