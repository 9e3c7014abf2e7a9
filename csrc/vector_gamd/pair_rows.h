// The operators that sum over pairs on the GPU; their formulas are in openmm_gnn/kernels/vector_network.py.
//
// A list holds each pair once, so what an atom receives is scattered over it. `pair_rows` sorts the ends of the pairs by
// the atom that receives: entry 2 k stands for the message of pair k to its first atom, 2 k + 1 for that to its second.
//
//   pair_rows(pairs (2, P) int64, distances (P,), cutoff, num_atoms)
//     -> starts (N + 1,) int32, entries (2 P,) int32
//
// starts[a] .. starts[a + 1] are the entries of atom a, in ascending order; what follows starts[N] is undefined. Padding
// (a negative index) and pairs at or beyond the cutoff have no entries. So a sum over the messages to an atom is one
// loop of one thread per channel: no atomics, and the same bits at every call. Nothing waits for the device and no shape
// depends on the data: all of it can be captured in a CUDA graph.
#pragma once

#include <cstdint>

#include "encoders/radial_edge.h"

namespace openmm_gnn {

struct PairRows {
  const int32_t* starts;   // (num_atoms + 1,)
  const int32_t* entries;  // (2 num_pairs,)
};

// P pairs, each once; a negative index is padding.
struct PairEnds {
  int64_t count;
  const int64_t* pairs;    // (2, P)
  const int64_t* types;    // (P,) rows of a radial table
  const float* vectors;    // (P, 3) from i to j
  const float* distances;  // (P,)
};

// Three groups of `width` channels: for scalars, for vectors along the pair, for the sender's vectors.
struct RowMessages {
  int64_t num_atoms, width;
  const float *source, *target;  // (N, 3 width)
  const float* value;            // (N, width)
  const float *probe, *carried;  // (N, 3, width); null before the first vectors exist
  SplineTable table;             // 3 width channels
  const float* mixing;           // (3, 3 width): of receiver's, sender's and mutual projections
};

struct RowMessageGradients {
  const float *scalars, *vectors;  // gradients that come in: (N, width), (N, 3, width)
  float *source, *target, *value, *probe, *carried;
  float* pair_vectors;  // (P, 3), or null
};

struct RowStrengths {
  int64_t num_atoms, width;
  const float *total, *left;  // (N, width)
  const float* probe;         // (N, 3, width)
  SplineTable table;          // width channels
  const float* mixing;        // (3, width)
  const float* readout;       // (width,)
};

struct RowStrengthGradients {
  const float* strengths;  // gradient that comes in, (P,)
  float *total, *left, *probe;
  float* pair_vectors;  // (P, 3), or null
};

}  // namespace openmm_gnn
