// Arguments and results of the operators of neighbor_pairs.h, for every device.
#pragma once

#include "base/arguments.h"
#include "base/boxed.h"
#include "neighbors/neighbor_pairs.h"

namespace openmm_gnn {

using PairResults = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // pairs, shifts, vectors, distances

// Room for `count` pairs, with vectors and distances or with shifts.
inline PairResults new_pairs(const Tensor& positions, int64_t count, bool geometry) {
  const int32_t dtype = dtype_of(positions);
  const int64_t measured = geometry ? count : 0;
  return {empty(positions, {2, count}, aoti_torch_dtype_int64()),
          empty(positions, {count - measured, 3}, aoti_torch_dtype_int32()), empty(positions, {measured, 3}, dtype),
          empty(positions, {measured}, dtype)};
}

// Positions of any strides.
inline void check_positions(const Tensor& positions, double cutoff) {
  if (positions.dim() != 2 || positions.size(1) != 3) {
    fail("positions has shape " + shape_text(positions) + ": give (number of atoms, 3)");
  }
  if (!is_float32(positions) && !is_float64(positions)) fail("positions must be float32 or float64");
  if (positions.size(0) >= (int64_t(1) << 30)) {
    fail("positions holds " + std::to_string(positions.size(0)) + " atoms: at most 2^30 - 1 are supported");
  }
  if (!(cutoff > 0 && cutoff < 1e18)) {
    fail("cutoff is " + std::to_string(cutoff) + ": give a finite length above 0");
  }
}

inline void check_system(const Tensor& positions, const Tensor& box_vectors, double cutoff) {
  check_positions(positions, cutoff);
  if (dtype_of(box_vectors) != dtype_of(positions)) {
    fail("box_vectors and positions differ in dtype: convert one of them");
  }
  CheckedArguments(positions, "positions").check_device(box_vectors, "box_vectors");
  if (box_vectors.dim() != 2 || box_vectors.size(1) != 3 || (box_vectors.size(0) != 0 && box_vectors.size(0) != 3)) {
    fail("box_vectors has shape " + shape_text(box_vectors) + ": give (3, 3), rows a, b, c, or (0, 3) for no box");
  }
}

// What update_neighbor_list asks, and the state that it changes.
struct ListArguments {
  Tensor positions, box_vectors;
  double cutoff, skin;
  bool full, geometry, trim;
  int64_t num_threads;
  Tensor reference_positions, reference_box, stored_pairs, stored_shifts, status;

  using Fields = std::tuple<Tensor, Tensor, double, double, bool, bool, bool, int64_t, Tensor, Tensor, Tensor, Tensor,
                            Tensor>;
};

template <typename T>
struct ListState {
  T *reference_positions, *reference_box;
  int32_t *stored_pairs, *stored_shifts;
  int64_t* status;
  int64_t capacity;

  int32_t* stored_i() const { return stored_pairs; }
  int32_t* stored_j() const { return stored_pairs + capacity; }
};

template <typename T>
ListState<T> checked_state(const ListArguments& in) {
  check(in.skin >= 0 && in.skin < 1e18, "skin is " + std::to_string(in.skin) + ": give a finite length, 0 or more");
  const CheckedArguments given(in.positions, "positions");
  const int64_t capacity = size_of(in.stored_pairs, "stored_pairs", 1, 2);
  check(capacity < INT32_MAX, "stored_pairs holds " + std::to_string(capacity) + " pairs: at most 2^31 - 2 are supported");
  return {given.get<T>(in.reference_positions, "reference_positions", {in.positions.size(0), 3}),
          given.get<T>(in.reference_box, "reference_box", {3, 3}),
          given.get<int32_t>(in.stored_pairs, "stored_pairs", {2, capacity}),
          given.get<int32_t>(in.stored_shifts, "stored_shifts", {capacity, 3}),
          given.get<int64_t>(in.status, "status", {kStatusSlots}),
          capacity};
}

}  // namespace openmm_gnn
