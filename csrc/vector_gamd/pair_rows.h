// The operators of a network with vector features, networks/vector_gamd.py, for every device; their formulas are in
// openmm_gnn/kernels/vector_network.py.
//
// On the CPU a loop reads each pair once and adds both directions of its message to the atoms. On the GPU what an atom
// receives would be scattered over the list, so there the sums run along rows: `pair_rows`, made once for a list of pairs,
// sorts the ends of the pairs by the atom that receives. Entry 2 k stands for the message of pair k to its first atom,
// 2 k + 1 for that to its second. The CPU needs no rows, and has empty ones.
//
// starts[a] .. starts[a + 1] are the entries of atom a, in ascending order; what follows starts[N] is undefined. Padding
// (a negative index) and pairs at or beyond the cutoff have no entries. So a sum over the messages to an atom is one
// loop of one thread per channel: no atomics, and the same bits at every call. Nothing waits for the device and no shape
// depends on the data: all of it can be captured in a CUDA graph.
#pragma once

#include <cstdint>

#include "encoders/radial_edge.h"

namespace openmm_gnn {

// Starts (N + 1,) and entries (2 P,), int32.
inline constexpr char kPairRows[] =
    "pair_rows(Tensor pairs, Tensor distances, float cutoff, int num_atoms) -> (Tensor starts, Tensor entries)";

// Sums (N, width) and (N, 3, width).
inline constexpr char kVectorMessages[] =
    "vector_messages(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"
    " Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing,"
    " float start, float cutoff, int num_threads) -> (Tensor scalars, Tensor vectors)";

// Gradients of the features in their order, then of the pairs' vectors. Without `geometry` the latter are empty, without
// `weights`, which CUDA has not, those of table and mixing.
inline constexpr char kVectorMessagesBackward[] =
    "vector_messages_backward(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"
    " Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing,"
    " float start, float cutoff, int num_threads, Tensor scalar_gradient, Tensor vector_gradient, bool geometry,"
    " bool weights) -> (Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table,"
    " Tensor mixing, Tensor pair_vectors)";

// (P,); 0 beyond the cutoff, and on CUDA NaN where the distance is.
inline constexpr char kPairStrengths[] =
    "pair_strengths(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"
    " Tensor total, Tensor left, Tensor probe, Tensor table, Tensor mixing, Tensor readout, float start, float cutoff,"
    " int num_threads) -> Tensor";

// As for the messages.
inline constexpr char kPairStrengthsBackward[] =
    "pair_strengths_backward(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"
    " Tensor total, Tensor left, Tensor probe, Tensor table, Tensor mixing, Tensor readout, float start, float cutoff,"
    " int num_threads, Tensor strength_gradient, bool geometry, bool weights) -> (Tensor total, Tensor left, Tensor probe,"
    " Tensor table, Tensor mixing, Tensor readout, Tensor pair_vectors)";

struct PairRows {
  const int32_t* starts;   // (num_atoms + 1,)
  const int32_t* entries;  // (2 num_pairs,)
};

// P pairs, each once; a negative index is padding. Atoms and types are int64, as PyTorch has them, or int32, as a neighbour
// list stores them.
template <typename Index>
struct PairEndsOf {
  int64_t count;
  const Index* pairs;      // (2, P)
  const Index* types;      // (P,) rows of a radial table
  const float* vectors;    // (P, 3) from i to j
  const float* distances;  // (P,)
  int64_t num_atoms, num_types;

  OPENMM_GNN_HOST_DEVICE int64_t i(int64_t k) const { return pairs[k]; }
  OPENMM_GNN_HOST_DEVICE int64_t j(int64_t k) const { return pairs[count + k]; }
  OPENMM_GNN_HOST_DEVICE bool padding(int64_t k) const { return i(k) < 0 && j(k) < 0; }
  // Atoms and a type that there are. The GPU, which cannot refuse others in words, takes them for no pair and answers NaN.
  OPENMM_GNN_HOST_DEVICE bool known(int64_t k) const {
    return i(k) >= 0 && j(k) >= 0 && i(k) < num_atoms && j(k) < num_atoms && types[k] >= 0 && types[k] < num_types;
  }
};
using PairEnds = PairEndsOf<int64_t>;
using StoredEnds = PairEndsOf<int32_t>;

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
  float* pair_vectors;    // (P, 3), or null
  float *table, *mixing;  // null where gradients of weights are not asked for
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
  float* pair_vectors;              // (P, 3), or null
  float *table, *mixing, *readout;  // null where gradients of weights are not asked for
};

}  // namespace openmm_gnn
