// Kinds of pairs, forces of splines of their distances, and sums of the forces of pairs (../radial_pair.h).
//
// A pair's force goes to two atoms, so forces are added with atomics; as integers, multiples of 2^-24 of the unit, for
// those sums do not depend on the order: the same bits at every call. A thread takes eight pairs that follow one another,
// of which most have the same first atom, and adds that one's sum once. All forces become NaN by a force that is not
// finite or is 2^30 and more, by a sum of 2^38 and more, which 256 such forces do not reach, by an atom or a type that
// there is not, and by NaN on padding, by which an invalid list shows itself. Cost per pair: 44 bytes read and about four
// atomic additions.
#pragma once

#include "vector_gamd/radial_pair.h"
#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

constexpr int kPairsOfThread = 8;
constexpr float kForceSteps = 16777216.f;  // of a unit
constexpr float kLargestForce = 1073741824.f;  // of a pair, and energy of a thread's pairs
constexpr int64_t kLargestSum = int64_t(1) << 62;  // of steps; sums that may have wrapped around are no smaller

// All zero at first.
struct FixedSums {
  int64_t* forces;  // (N, 3)
  int64_t* energy;  // (1,)
  int32_t* invalid;

  OPENMM_GNN_HOST_DEVICE int64_t steps(float value, float limit) const {
    if (!(value < limit && value > -limit)) {
      raise_flag(invalid);
      return 0;
    }
    return static_cast<int64_t>(value * kForceSteps);
  }

  OPENMM_GNN_HOST_DEVICE void add(int64_t atom, const float (&force)[3], float sign, float limit) const {
    for (int d = 0; d < 3; ++d) atomic_add(forces + 3 * atom + d, steps(sign * force[d], limit));
  }
};

// Forces that splines give, and their energies.
struct SplinePairs {
  PairSplines splines;
  const int64_t* types;
  const float *vectors, *distances;

  // A list that is invalid says so by distances of NaN, and has no pairs. A type that the table lacks is as bad.
  OPENMM_GNN_HOST_DEVICE bool invalid(int64_t k) const {
    return distances[k] != distances[k] ||
           (distances[k] < splines.cutoff && (types[k] < 0 || types[k] >= splines.types));
  }

  OPENMM_GNN_HOST_DEVICE bool at(int64_t k, float (&force)[3], float& energy) const {
    if (!(distances[k] < splines.cutoff) || invalid(k)) return false;
    const PairEnergy found = pair_energy(splines, types[k], distances[k]);
    for (int d = 0; d < 3; ++d) force[d] = found.strength * vectors[3 * k + d];
    energy += found.energy;
    return true;
  }
};

// Forces that are given, (P, 3).
struct GivenPairs {
  const float* forces;

  OPENMM_GNN_HOST_DEVICE bool invalid(int64_t k) const {
    const float sum = forces[3 * k] + forces[3 * k + 1] + forces[3 * k + 2];
    return sum != sum;
  }

  OPENMM_GNN_HOST_DEVICE bool at(int64_t k, float (&force)[3], float&) const {
    for (int d = 0; d < 3; ++d) force[d] = forces[3 * k + d];
    return true;
  }
};

// A force pushes the first atom along, and the second one against it.
template <class Pairs, typename Index = int64_t>
struct AddPairForces {
  static constexpr int kThreads = 256;
  struct Shared {
    int64_t energy[kThreads];
  };
  const Index* pairs;  // (2, count)
  int64_t count, num_atoms;
  Pairs source;
  FixedSums sums;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t first = block.index() * kThreads;
    block.phase([&](int thread) {
      shared.energy[thread] = sums.steps(add_run((first + thread) * kPairsOfThread), kLargestForce);
    });
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      int64_t total = 0;
      for (int other = 0; other < kThreads; ++other) total += shared.energy[other];
      if (total != 0) atomic_add(sums.energy, total);
    });
  }

 private:
  // The energy of the pairs from `begin` on.
  OPENMM_GNN_HOST_DEVICE float add_run(int64_t begin) const {
    const int64_t end = begin + kPairsOfThread < count ? begin + kPairsOfThread : count;
    int64_t atom = -1;
    float own[3] = {0.f, 0.f, 0.f}, energy = 0.f;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t i = pairs[k], j = pairs[count + k];
      const bool padding = i < 0 && j < 0, known = i >= 0 && j >= 0 && i < num_atoms && j < num_atoms;
      float force[3];
      if (source.invalid(k) || !(padding || known)) raise_flag(sums.invalid);
      if (!known || !source.at(k, force, energy)) continue;
      if (i != atom) {
        if (atom >= 0) sums.add(atom, own, 1.f, kPairsOfThread * kLargestForce);
        atom = i;
        for (float& value : own) value = 0.f;
      }
      for (int d = 0; d < 3; ++d) own[d] += force[d];
      sums.add(j, force, -1.f, kLargestForce);
    }
    if (atom >= 0) sums.add(atom, own, 1.f, kPairsOfThread * kLargestForce);
    return energy;
  }
};

// One thread = one number: forces (3 N), then the energy unless it is null.
struct ReadFixedSums {
  FixedSums sums;
  int64_t num_forces;
  float *forces, *energy;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    if (item == num_forces && energy == nullptr) return;
    const int64_t steps = item < num_forces ? sums.forces[item] : *sums.energy;
    const bool valid = *sums.invalid == 0 && steps < kLargestSum && steps > -kLargestSum;
    const float value = valid ? static_cast<float>(steps) * (1.f / kForceSteps) : NAN;
    *(item < num_forces ? forces + item : energy) = value;
  }
};

struct KindsOfPairs {
  const int64_t* pairs;
  int64_t count;
  KindTables tables;
  int64_t* types;

  OPENMM_GNN_HOST_DEVICE void at(int64_t k) const { types[k] = pair_kind(tables, pairs[k], pairs[count + k]); }
};

}  // namespace openmm_gnn::cuda
