// The contract of the neighbour-pair operators, for every device.
//
// neighbor_pairs(positions, box_vectors, cutoff, full, geometry, num_threads) -> (pairs, shifts, vectors, distances)
//   positions    (N, 3) float32 or float64, any strides
//   box_vectors  (3, 3) of the same type, rows a, b, c of any cell with volume; or (0, 3): open boundary
//   pairs        (2, P) int64, ordered by i, the same for any number of threads
//   shifts       (P, 3) int32: r_ij = r_j - r_i + S @ box for the positions as given; (0, 3) if geometry
//   vectors      (P, 3), distances (P,): r_ij and its length in the positions' type, no gradient; empty unless geometry
//   A pair is every (i, j, image) with |r_ij| < cutoff, but never an atom with itself in the same image; with
//   full == false each pair once (pair_rules.h). Errors on the CPU are exceptions that name the value.
//
// update_neighbor_list(positions, box_vectors, cutoff, skin, full, geometry, trim, num_threads,
//                      reference_positions, reference_box, stored_pairs, stored_shifts, status) -> the same four
//   Keeps every pair within cutoff + skin of the reference positions, and finds it anew when an atom has moved more
//   than skin / 2 from its reference (lattice translations do not count), the box differs, or status says EMPTY.
//   reference_positions (N, 3), reference_box (3, 3; zeros: open), in the positions' type
//   stored_pairs (2, capacity) int32, stored_shifts (capacity, 3) int32 for the reference positions, status (64,) int64
//   trim:   pairs strictly within the cutoff, as neighbor_pairs gives them; P varies; on the CPU alone
//   !trim:  all stored pairs, P = capacity, no host synchronisation. Unused columns: pairs -1, shifts 0, vectors
//           (2 (cutoff + skin), 0, 0) and distances 2 (cutoff + skin), so that any cutoff function makes them vanish.
//   Shifts are valid for the raw positions of this call.
//
// nearest_edges(pairs (2, P) int64, distances (P,), num_atoms, max_neighbors) -> (E,) int64, on the CPU alone
//   What graph/edges.py does with two sorts of all pairs: places in the list "every atom with itself, then the pairs" of each
//   atom itself, then of its nearest pairs in order, max_neighbors of an atom at most.
//
// frame_edges: its contract is in openmm_gnn/graph/edges.py; on CUDA alone, for on the CPU each frame has a cell
// list.
#pragma once

#include <cstdint>

namespace openmm_gnn {

inline constexpr char kNeighborPairs[] =
    "neighbor_pairs(Tensor positions, Tensor box_vectors, float cutoff, bool full, bool geometry, int num_threads)"
    " -> (Tensor pairs, Tensor shifts, Tensor vectors, Tensor distances)";

inline constexpr char kUpdateNeighborList[] =
    "update_neighbor_list(Tensor positions, Tensor box_vectors, float cutoff, float skin, bool full, bool geometry,"
    " bool trim, int num_threads, Tensor(a!) reference_positions, Tensor(b!) reference_box, Tensor(c!) stored_pairs,"
    " Tensor(d!) stored_shifts, Tensor(e!) status)"
    " -> (Tensor pairs, Tensor shifts, Tensor vectors, Tensor distances)";

inline constexpr char kNearestEdges[] =
    "nearest_edges(Tensor pairs, Tensor distances, int num_atoms, int max_neighbors) -> Tensor";

inline constexpr char kFrameEdges[] =
    "frame_edges(Tensor positions, Tensor batch, float cutoff, int most, bool nearest) -> Tensor edge_index";

// Slots of `status`.
enum StatusSlot : int {
  kStatusStored = 0,    // pairs stored; at most the capacity
  kStatusRequired = 1,  // pairs the last rebuild found; more than the capacity means overflow
  kStatusRebuilds = 2,
  kStatusCalls = 3,
  kStatusErrors = 4,   // ErrorBit; kept until the state is allocated anew
  kStatusValid = 5,    // 0: EMPTY, nothing stored yet
  kStatusBadAtom = 6,  // lowest atom with a position that is not finite, or -1
  kStatusKinds = 7,    // the rebuild whose pairs an operator has stored the kinds of, see vector_gamd/network_forces.h
  kStatusPlan = 8,     // from here on, on CUDA: the plan of the last search (cuda/plan_search.h)
  kStatusSlots = 64,
};

enum ErrorBit : int64_t {
  kErrorOverflow = 1,
  kErrorPositions = 2,  // NaN, infinite, or more than kMaxWrap cells away
  kErrorBox = 4,        // degenerate
  kErrorImages = 8,     // the cutoff spans too many images of the box, or atoms
  kErrorStored = 16,    // stored pairs, or a number of them, that are of another list; on CUDA, the CPU throws
};

}  // namespace openmm_gnn
