// Of the stored pairs, those that are within the cutoff now. This runs at every step of a simulation.
#pragma once

#include "base/arguments.h"
#include "base/cpu/buffer.h"

namespace openmm_gnn {

// The positions continuous with the reference, one structure of arrays, and how they differ from the raw ones.
template <typename T>
struct Tracked {
  Buffer<T> x, y, z;
  Buffer<int32_t> jump;  // (atoms, 3): unwrapped = raw - jump @ box
};

// The stored pairs and what they are looked at with.
template <typename T>
struct StoredPairs {
  const int32_t *i, *j, *shifts;  // shifts (pairs, 3), for the tracked positions
  int64_t count, num_atoms;
  const Tracked<T>* tracked;
  const T* box;  // nine numbers, zeros for an open boundary
  T cutoff_squared;
};

// The pairs that are within the cutoff.
template <typename T>
struct ClosePairs {
  Buffer<T> x, y, z;
  Buffer<int32_t> i, j;
  Buffer<int32_t> place;  // among the stored pairs
  int64_t count = 0;
};

// The list is the caller's memory, so each atom is looked at before it is read.
template <typename T>
[[noreturn]] void fail_stored_pair(const StoredPairs<T>& stored, int64_t k) {
  fail("stored pair " + std::to_string(k) + " is (" + std::to_string(stored.i[k]) + ", " + std::to_string(stored.j[k]) +
       "): there are " + std::to_string(stored.num_atoms) + " atoms, so stored_pairs belongs to another list");
}

// Vector of stored pair k; the order of operations is that of the vector code.
template <typename T>
inline __attribute__((always_inline)) void stored_vector(const StoredPairs<T>& stored, int64_t k, T* r) {
  const int32_t i = stored.i[k], j = stored.j[k];
  const uint32_t atoms = static_cast<uint32_t>(stored.num_atoms);
  if (static_cast<uint32_t>(i) >= atoms || static_cast<uint32_t>(j) >= atoms) fail_stored_pair(stored, k);
  const int32_t* s = stored.shifts + 3 * k;
  const T sx = static_cast<T>(s[0]), sy = static_cast<T>(s[1]), sz = static_cast<T>(s[2]);
  const Tracked<T>& p = *stored.tracked;
  const T* box = stored.box;
  r[0] = (p.x[j] - p.x[i]) + (sx * box[0] + sy * box[3] + sz * box[6]);
  r[1] = (p.y[j] - p.y[i]) + (sx * box[1] + sy * box[4] + sz * box[7]);
  r[2] = (p.z[j] - p.z[i]) + (sx * box[2] + sy * box[5] + sz * box[8]);
}

// Fills `close` with those of stored pairs begin ... end - 1 that are within the cutoff, in the stored order.
template <typename T>
void filter_pairs(const StoredPairs<T>& stored, int64_t begin, int64_t end, ClosePairs<T>& close);

// Writes them as int64 pairs, vectors (count, 3) and distances.
template <typename T>
void write_close_pairs(const ClosePairs<T>& close, int64_t* i, int64_t* j, T* vectors, T* distances);

}  // namespace openmm_gnn
