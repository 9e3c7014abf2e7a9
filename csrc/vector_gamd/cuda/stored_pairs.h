// The pairs that a skin list stores, as a whole network reads them (../network_forces.h): with kinds, which are found when the
// pairs are, and as they are now. No list of pairs is written at any step but vectors and distances of the near ones.
//
// KindsOfStored: one thread = one slot; returns at once unless the list has been found anew. EdgesOfStored: one thread = one
// slot, 20 bytes read and 16 written. PolynomialPairs: 24 bytes read for each pair of the pair term, none written.
#pragma once

#include "neighbors/cuda/emit_list.h"
#include "vector_gamd/cuda/pair_forces.h"

namespace openmm_gnn::cuda {

template <typename T>
struct StoredSlots {
  SkinState<T> state;
  Workspace<T> work;
  int64_t num_atoms;

  // The number of slots in use is the caller's memory too: one that cannot be is none.
  OPENMM_GNN_HOST_DEVICE int64_t used() const {
    const int64_t stored = state.status[kStatusStored];
    return stored >= 0 && stored <= state.capacity ? stored : 0;
  }
  OPENMM_GNN_HOST_DEVICE void refuse() const {  // the same values from every thread that comes here
    state.status[kStatusErrors] |= kErrorStored;
    state.status[kStatusValid] = 0;
  }
  // False where it stores atoms that there are not.
  OPENMM_GNN_HOST_DEVICE bool atoms_of(int64_t slot, FoundPair<T>& pair) const {
    pair.i = state.stored_pairs[slot];
    pair.j = state.stored_pairs[state.capacity + slot];
    return pair.i >= 0 && pair.i < num_atoms && pair.j >= 0 && pair.j < num_atoms;
  }
  OPENMM_GNN_HOST_DEVICE void measure(int64_t slot, FoundPair<T>& pair) const {
    int32_t shift[3];
    pair_now(work, state, slot, pair, shift);
  }
};

template <typename T>
struct KindsOfStored {
  StoredSlots<T> slots;
  KindTables tables;
  int32_t* kinds;  // (capacity,)

  OPENMM_GNN_HOST_DEVICE void at(int64_t slot) const {
    const int64_t* status = slots.state.status;
    if (slot == 0 && slots.used() != status[kStatusStored]) slots.refuse();
    if (status[kStatusKinds] == status[kStatusRebuilds]) return;
    FoundPair<T> pair;
    const bool known = slot < slots.used() && slots.atoms_of(slot, pair);
    kinds[slot] = known ? static_cast<int32_t>(pair_kind(tables, pair.i, pair.j)) : 0;
  }
};

// The kinds are those of the last search, from here on; one thread.
struct MarkKinds {
  int64_t* status;

  OPENMM_GNN_HOST_DEVICE void at(int64_t) const { status[kStatusKinds] = status[kStatusRebuilds]; }
};

template <typename T>
struct EdgesOfStored {
  StoredSlots<T> slots;
  float far;  // beyond every cutoff
  float *vectors, *distances;

  OPENMM_GNN_HOST_DEVICE void at(int64_t slot) const {
    FoundPair<T> pair;
    bool used = slot < slots.used();
    if (used && !slots.atoms_of(slot, pair)) {
      slots.refuse();
      used = false;
    }
    if (used) slots.measure(slot, pair);
    distances[slot] = used ? static_cast<float>(sqrt(pair.squared)) : far;
    for (int d = 0; d < 3; ++d) vectors[3 * slot + d] = used ? static_cast<float>(pair.d[d]) : d == 0 ? far : 0.f;
  }
};

// Forces of a network on its pairs: gradients of an energy, or strengths along the pairs.
struct NetworkPairs {
  const float *vectors, *distances, *strengths;
  const float* pair_vectors;  // null: strengths are forces, in units of the scale
  float cutoff, scale;

  OPENMM_GNN_HOST_DEVICE bool invalid(int64_t k) const { return distances[k] != distances[k]; }

  // Numbers that are not finite are met when they are added.
  OPENMM_GNN_HOST_DEVICE bool at(int64_t k, float (&force)[3], float& energy) const {
    if (!(distances[k] < cutoff)) return false;
    if (pair_vectors != nullptr) {
      energy += scale * strengths[k];
      for (int d = 0; d < 3; ++d) force[d] = pair_vectors[3 * k + d];
    } else {
      const float strength = scale * strengths[k] / (distances[k] > 1e-6f ? distances[k] : 1e-6f);
      for (int d = 0; d < 3; ++d) force[d] = strength * vectors[3 * k + d];
    }
    return true;
  }
};

// Forces of the pair term, splines as polynomials of the place in each interval: (kinds, intervals, 4), in double precision as
// on the CPU.
template <typename T>
struct PolynomialPairs {
  StoredSlots<T> slots;
  const int32_t* kinds;
  int64_t num_kinds, intervals;
  const double* values;
  double start, inverse_spacing, cutoff;

  OPENMM_GNN_HOST_DEVICE bool invalid(int64_t k) const {
    return k < slots.used() && (kinds[k] < 0 || kinds[k] >= num_kinds);
  }

  OPENMM_GNN_HOST_DEVICE bool at(int64_t k, float (&force)[3], float& energy) const {
    FoundPair<T> pair;
    if (k >= slots.used() || invalid(k) || !slots.atoms_of(k, pair)) return false;
    slots.measure(k, pair);
    const double x = pair.d[0], y = pair.d[1], z = pair.d[2], squared = x * x + y * y + z * z;
    if (!(squared < cutoff * cutoff)) return false;
    const double distance = sqrt(squared), place = (distance - start) * inverse_spacing;
    const double inside = place > 0 ? place : 0.;
    int64_t interval = static_cast<int64_t>(inside);
    interval = interval < intervals ? interval : intervals - 1;
    const double t = inside - static_cast<double>(interval);
    const double* p = values + 4 * (kinds[k] * intervals + interval);
    const double slope = (p[1] + t * (2 * p[2] + t * (3 * p[3]))) * inverse_spacing;
    energy += static_cast<float>(p[0] + t * (p[1] + t * (p[2] + t * p[3])) +
                                 (place < 0 ? slope * (distance - start) : 0.));
    const double strength = slope / (distance > 1e-6 ? distance : 1e-6);
    force[0] = static_cast<float>(strength * x);
    force[1] = static_cast<float>(strength * y);
    force[2] = static_cast<float>(strength * z);
    return true;
  }
};

// One thread = one number: forces (3 N), then the energy. NaN where a list has said that it is invalid.
template <typename T>
struct WriteForces {
  FixedSums sums;
  const int64_t *near_status, *far_status;  // the latter may be null
  int64_t num_forces;
  bool has_energy;
  T *forces, *energy;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t steps = item < num_forces ? sums.forces[item] : *sums.energy;
    const bool errors = near_status[kStatusErrors] != 0 || (far_status != nullptr && far_status[kStatusErrors] != 0);
    const bool valid = !errors && *sums.invalid == 0 && steps < kLargestSum && steps > -kLargestSum;
    const T value = valid ? static_cast<T>(static_cast<double>(steps) * (1. / kForceSteps)) : static_cast<T>(NAN);
    if (item < num_forces) {
      forces[item] = value;
    } else {
      *energy = has_energy || !valid ? value : T(0);
    }
  }
};

// One thread = one of the numbers.
struct FillFloats {
  float* numbers;
  float value;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const { numbers[item] = value; }
};

}  // namespace openmm_gnn::cuda
