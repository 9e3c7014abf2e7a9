// One channel of one pair in a network with vector features, as the CUDA kernels see it: from an atom's own
// side. Formulas: openmm_gnn/kernels/vector_network.py.
#pragma once

#include "vector_gamd/pair_rows.h"

namespace openmm_gnn {

// An entry of a row: the pair, and who is at its other end. `u` of the edge points from the receiver to the sender.
struct RowEntry {
  int64_t pair, receiver, sender;
  bool first;  // the receiver is the pair's first atom
};

template <class Ends>
OPENMM_GNN_HOST_DEVICE RowEntry row_entry(const Ends& ends, int32_t entry) {
  const int64_t pair = entry >> 1;
  const int64_t i = ends.pairs[pair], j = ends.pairs[ends.count + pair];
  const bool first = (entry & 1) == 0;
  return {pair, first ? i : j, first ? j : i, first};
}

template <class Ends>
OPENMM_GNN_HOST_DEVICE RadialEdge edge_of(const Ends& ends, const RowEntry& entry, const SplineTable& table) {
  const int64_t type = ends.types[entry.pair];
  const bool known = type >= 0 && type < ends.num_types;
  RadialEdge edge = radial_edge(ends.vectors + 3 * entry.pair, ends.distances[entry.pair], known ? type : 0, table);
  if (!known) edge.envelope = NAN;
  if (!entry.first) {
    for (int d = 0; d < 3; ++d) edge.u[d] = -edge.u[d];
  }
  return edge;
}

using Lanes = float;  // of the formulas that follow
#define INLINE OPENMM_GNN_HOST_DEVICE
INLINE float load(const float* p) { return *p; }
#include "vector_gamd/pair_formulas.inl"
#undef INLINE

// What SiLU takes for the message of group g to atom a, in both directions: [0] b to a, [1] a to b.
struct MessageInputsOfPair {
  float z[2];
};

template <bool kVectors>
OPENMM_GNN_HOST_DEVICE MessageInputsOfPair message_inputs(const RowMessages& in, const RadialEdge& edge, int64_t a,
                                                          int64_t b, const PairProjections& p, int64_t c) {
  const int64_t wide = 3 * in.width;
  const float radial = spline(in.table, edge, edge.weight, c);
  MessageInputsOfPair result{{radial + in.source[b * wide + c] + in.target[a * wide + c],
                              radial + in.source[a * wide + c] + in.target[b * wide + c]}};
  if (kVectors) {
    const float receiver = in.mixing[c], sender = in.mixing[wide + c], mutual = in.mixing[2 * wide + c] * p.mutual;
    result.z[0] += receiver * p.own + sender * p.other + mutual;
    result.z[1] += receiver * p.other + sender * p.own + mutual;
  }
  return result;
}

// Gradients of one channel of a pair, from both its messages.
struct PairGradients {
  float dz[2][3];               // of what SiLU takes, by direction and group
  float message[2][3];          // the messages themselves
  float own, other, mutual;     // of the projections
  float du[3], dr;              // of unit vector and distance
};

template <bool kVectors>
OPENMM_GNN_HOST_DEVICE PairGradients message_gradients(const RowMessages& in, const RowMessageGradients& out,
                                                       const RadialEdge& edge, int64_t a, int64_t b,
                                                       const PairProjections& p, int64_t f) {
  const int64_t width = in.width, wide = 3 * width;
  constexpr int kGroups = kVectors ? 3 : 2;
  PairGradients g{};
  OPENMM_GNN_UNROLL
  for (int to = 0; to < 2; ++to) {
    const int64_t receiver = to == 0 ? a : b, sender = to == 0 ? b : a;
    const float sign = to == 0 ? 1.f : -1.f;
    float arriving[3] = {out.scalars[receiver * width + f] * in.value[sender * width + f], 0.f, 0.f};
    float vector[3];
    for (int d = 0; d < 3; ++d) {
      vector[d] = out.vectors[(3 * receiver + d) * width + f];
      arriving[1] += vector[d] * sign * edge.u[d];
      if (kVectors) arriving[2] += vector[d] * in.carried[(3 * sender + d) * width + f];
    }
    OPENMM_GNN_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      const int64_t c = group * width + f;
      const ActivatedChannel activated = silu_channel(message_inputs<kVectors>(in, edge, a, b, p, c).z[to]);
      g.message[to][group] = activated.value * edge.envelope;
      g.dz[to][group] = arriving[group] * activated.slope * edge.envelope;
      g.dr += arriving[group] * activated.value * edge.envelope_slope +
              g.dz[to][group] * spline(in.table, edge, edge.slope, c);
      if (kVectors) {
        const float by_receiver = in.mixing[c] * g.dz[to][group], by_sender = in.mixing[wide + c] * g.dz[to][group];
        g.own += to == 0 ? by_receiver : by_sender;
        g.other += to == 0 ? by_sender : by_receiver;
        g.mutual += in.mixing[2 * wide + c] * g.dz[to][group];
      }
    }
    for (int d = 0; d < 3; ++d) g.du[d] += sign * g.message[to][1] * vector[d];
  }
  if (kVectors) {
    for (int d = 0; d < 3; ++d) g.du[d] += g.own * p.of_a[d] - g.other * p.of_b[d];
  }
  return g;
}

// From the gradients of unit vector and distance to that of the vector.
OPENMM_GNN_HOST_DEVICE void vector_gradient(const RadialEdge& edge, const float (&du)[3], float dr, float* gradient) {
  const float along = du[0] * edge.u[0] + du[1] * edge.u[1] + du[2] * edge.u[2];
  for (int d = 0; d < 3; ++d) {
    gradient[d] = (du[d] - along * edge.u[d]) * edge.inverse_distance + dr * edge.u[d];
  }
}

}  // namespace openmm_gnn
