// The two loops over neighbour pairs of a network with vector features, networks/vector_gamd.py; formulas are there.
//
// Edge features never exist in memory: each pair is read once, both directions of its message are computed in
// registers, and the sums go to the atoms. The backward pass computes them again. Cost per pair and 16 channels: about
// 150 instructions forward, twice as many backward.
#pragma once

#include <cstdint>

namespace openmm_gnn {

// P pairs, each once; a negative index is padding.
struct PairList {
  int64_t count;
  const int64_t *i, *j;
  const int64_t* type;     // rows of a radial table
  const float* vectors;    // (P, 3) from i to j
  const float* distances;  // (P,)
};

// Cubic B-splines on equally spaced knots, (types, knots, channels).
struct RadialTable {
  const float* values;
  int64_t knots, channels;
  float start, cutoff;
};

// Three groups of `width` channels: for scalars, for vectors along the pair, for the sender's vectors.
struct Messages {
  int64_t num_atoms, width;
  const float *source, *target;  // (N, 3 width)
  const float* value;            // (N, width)
  const float *probe, *carried;  // (N, 3, width); null before the first vectors exist
  RadialTable table;             // 3 width channels
  const float* mixing;           // (3, 3 width): of receiver's, sender's and mutual projections
};

struct MessageGradients {
  const float *scalars, *vectors;  // gradients that come in: (N, width), (N, 3, width)
  float *source, *target, *value, *probe, *carried;
  float *table, *mixing;  // null where gradients of weights are not wanted
  float* pair_vectors;  // (P, 3), or null
};

struct Strengths {
  int64_t num_atoms, width;
  const float *total, *left;  // (N, width)
  const float* probe;         // (N, 3, width)
  RadialTable table;          // width channels
  const float* mixing;        // (3, width)
  const float* readout;       // (width,)
};

struct StrengthGradients {
  const float* strengths;  // gradient that comes in, (P,)
  float *total, *left, *probe;
  float *table, *mixing, *readout;  // null where gradients of weights are not wanted
  float* pair_vectors;  // (P, 3), or null
};

// Pairs [begin, end); all sums are added to what the outputs hold.
struct VectorNetworkKernels {
  void (*messages)(const PairList&, int64_t begin, int64_t end, const Messages&, float* scalars, float* vectors);
  void (*message_gradients)(const PairList&, int64_t begin, int64_t end, const Messages&, const MessageGradients&);
  void (*strengths)(const PairList&, int64_t begin, int64_t end, const Strengths&, float* strengths);
  void (*strength_gradients)(const PairList&, int64_t begin, int64_t end, const Strengths&, const StrengthGradients&);
};

const VectorNetworkKernels& vector_network_kernels();

}  // namespace openmm_gnn
