// What a search does with the pairs it meets. A search runs twice over the same candidates: the first time it counts
// the pairs of every strand, the second time, when the sums of the counts are known, it writes each pair to its place.
// Both passes are one function compiled with one action or the other and without fused multiply-adds (-fmad=false), so
// they agree about every pair to the last bit, also where the second pass knows a pair by the first one's word
// (search_cells.h). No row of pairs is kept in between: no capacity per row, no compaction, exact totals even on overflow,
// rows in the order of the atoms whatever the schedule.
#pragma once

#include "neighbors/pair_rules.h"
#include "neighbors/cuda/plan_search.h"

namespace openmm_gnn::cuda {

// A pair between wrapped positions: d = r_j - r_i + image @ box.
template <typename T>
struct FoundPair {
  int64_t i, j;
  int32_t image[3];
  T d[3];
  T squared;
};

// What lies between atom i and a candidate in the image `pair.image`. `offset` is image @ box.
template <typename T>
OPENMM_GNN_HOST_DEVICE void measure(const SearchAtom<T>& atom, const SearchAtom<T>& other, const T (&offset)[3],
                                    FoundPair<T>& pair) {
  // The difference first: (r_j - r_i) + offset is odd under exchange of i and j, (r_j + offset) - r_i is not.
  pair.d[0] = (other.x - atom.x) + offset[0];
  pair.d[1] = (other.y - atom.y) + offset[1];
  pair.d[2] = (other.z - atom.z) + offset[2];
  pair.squared = squared_length(pair.d[0], pair.d[1], pair.d[2]);
  pair.i = atom.index;
  pair.j = other.index;
}

// Tests one candidate. True if the pair belongs to the list.
template <typename T>
OPENMM_GNN_HOST_DEVICE bool is_pair(const SearchAtom<T>& atom, const SearchAtom<T>& other, const T (&offset)[3],
                                    T cutoff, bool full, FoundPair<T>& pair) {
  measure(atom, other, offset, pair);
  if (!within(pair.squared, cutoff)) return false;
  if (is_self(pair.i, pair.j, pair.image[0], pair.image[1], pair.image[2])) return false;
  return full || in_half_list(pair.i, pair.j, pair.image[0], pair.image[1], pair.image[2]);
}

// First pass.
template <typename T>
struct CountPairs {
  struct Thread {
    int32_t pairs;
  };
  static constexpr bool kVisits = false;  // each pair
  int32_t* strand_count;

  OPENMM_GNN_HOST_DEVICE bool wanted(const Plan<T>& plan) const { return plan.active(); }
  OPENMM_GNN_HOST_DEVICE void begin(Thread& thread, int64_t) const { thread.pairs = 0; }
  OPENMM_GNN_HOST_DEVICE void pair(Thread& thread, const FoundPair<T>&) const { ++thread.pairs; }
  OPENMM_GNN_HOST_DEVICE void count(Thread& thread, int pairs) const { thread.pairs += pairs; }
  OPENMM_GNN_HOST_DEVICE void end(Thread& thread, int64_t strand) const { strand_count[strand] = thread.pairs; }
};

// Second pass; `Output` is one of the two below.
template <typename T, class Output>
struct WritePairs {
  struct Thread {
    int64_t next;
  };
  static constexpr bool kVisits = true;
  ScanMemory scan;
  const int32_t* wraps;
  Output output;

  OPENMM_GNN_HOST_DEVICE bool wanted(const Plan<T>& plan) const {
    return plan.active() && plan.found <= output.capacity;
  }
  OPENMM_GNN_HOST_DEVICE void begin(Thread& thread, int64_t strand) const { thread.next = scan.start(strand); }
  OPENMM_GNN_HOST_DEVICE void pair(Thread& thread, const FoundPair<T>& found) const {
    int32_t shift[3] = {0, 0, 0};
    for (int k = 0; k < 3 && output.has_shifts(); ++k) {
      shift[k] = raw_shift(found.image[k], wraps[3 * found.i + k], wraps[3 * found.j + k]);
    }
    output.write(thread.next++, found, shift);
  }
  OPENMM_GNN_HOST_DEVICE void end(Thread&, int64_t) const {}
};

// The tensors that neighbor_pairs and update_neighbor_list return.
template <typename T>
struct PairTensors {
  int64_t* pairs;      // (2, capacity)
  int32_t* shifts;     // (capacity, 3), or nullptr
  T* vectors;          // (capacity, 3), or nullptr
  T* distances;        // (capacity,), or nullptr
  int64_t capacity;

  OPENMM_GNN_HOST_DEVICE bool has_shifts() const { return shifts != nullptr; }
  OPENMM_GNN_HOST_DEVICE void write(int64_t place, const FoundPair<T>& found, const int32_t (&shift)[3]) const {
    pairs[place] = found.i;
    pairs[capacity + place] = found.j;
    if (shifts != nullptr) {
      for (int k = 0; k < 3; ++k) shifts[3 * place + k] = shift[k];
    }
    if (vectors != nullptr) {
      for (int d = 0; d < 3; ++d) vectors[3 * place + d] = found.d[d];
      distances[place] = sqrt(found.squared);
    }
  }
};

// The stored list of the skin: 32-bit atoms, shifts between the reference positions.
template <typename T>
struct StoredList {
  int32_t* pairs;   // (2, capacity)
  int32_t* shifts;  // (capacity, 3)
  int64_t capacity;

  OPENMM_GNN_HOST_DEVICE bool has_shifts() const { return true; }
  OPENMM_GNN_HOST_DEVICE void write(int64_t place, const FoundPair<T>& found, const int32_t (&shift)[3]) const {
    pairs[place] = static_cast<int32_t>(found.i);
    pairs[capacity + place] = static_cast<int32_t>(found.j);
    for (int k = 0; k < 3; ++k) shifts[3 * place + k] = shift[k];
  }
};

}  // namespace openmm_gnn::cuda
