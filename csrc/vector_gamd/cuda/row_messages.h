// The loops over pairs of a network with vector features, as sums over the rows of pair_rows (../pair_rows.h).
//
// SumRowMessages, SumRowMessageGradients, SumRowStrengthGradients: one thread = one channel of one atom, which
// walks along the atom's row and keeps its sums in registers: no atomics, and the order of the sum is that of the list.
// The backward pass reads each pair from both its ends and computes the activations again, three SiLUs of 40 bytes of
// features each, instead of 12 atomic additions. Cost per end of a pair and channel, with vectors: 100 bytes read,
// mostly from the cache, and about 120 operations forward, 300 backward. Nothing of an edge is ever stored.
#pragma once

#include "vector_gamd/vector_pairs.h"
#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

template <bool kVectors>
struct SumRowMessages {
  PairRows rows;
  PairEnds ends;
  RowMessages in;
  float *scalars, *vectors;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t width = in.width, a = item / width, f = item - a * width;
    float scalar = 0.f, vector[3] = {0.f, 0.f, 0.f};
    for (int32_t place = rows.starts[a]; place < rows.starts[a + 1]; ++place) {
      const RowEntry entry = row_entry(ends, rows.entries[place]);
      const RadialEdge edge = edge_of(ends, entry, in.table);
      const int64_t b = entry.sender;
      PairProjections p{};
      if (kVectors) p = project_pair(in.probe, a, b, width, f, edge);
      float message[3] = {0.f, 0.f, 0.f};
      for (int group = 0; group < (kVectors ? 3 : 2); ++group) {
        const float z = message_inputs<kVectors>(in, edge, a, b, p, group * width + f).z[0];
        message[group] = silu_channel(z).value * edge.envelope;
      }
      scalar += message[0] * in.value[b * width + f];
      for (int d = 0; d < 3; ++d) {
        vector[d] += message[1] * edge.u[d];
        if (kVectors) vector[d] += message[2] * in.carried[(3 * b + d) * width + f];
      }
    }
    scalars[a * width + f] = scalar;
    for (int d = 0; d < 3; ++d) vectors[(3 * a + d) * width + f] = vector[d];
  }
};

template <bool kVectors>
struct SumRowMessageGradients {
  PairRows rows;
  PairEnds ends;
  RowMessages in;
  RowMessageGradients out;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t width = in.width, a = item / width, f = item - a * width;
    float source[3] = {}, target[3] = {}, value = 0.f, probe[3] = {}, carried[3] = {};
    for (int32_t place = rows.starts[a]; place < rows.starts[a + 1]; ++place) {
      const RowEntry entry = row_entry(ends, rows.entries[place]);
      const RadialEdge edge = edge_of(ends, entry, in.table);
      const int64_t b = entry.sender;
      PairProjections p{};
      if (kVectors) p = project_pair(in.probe, a, b, width, f, edge);
      const PairGradients g = message_gradients<kVectors>(in, out, edge, a, b, p, f);
      for (int group = 0; group < 3; ++group) {
        target[group] += g.dz[0][group];
        source[group] += g.dz[1][group];
      }
      value += g.message[1][0] * out.scalars[b * width + f];
      if constexpr (kVectors) {
        for (int d = 0; d < 3; ++d) {
          probe[d] += g.own * edge.u[d] + g.mutual * p.of_b[d];
          carried[d] += g.message[1][2] * out.vectors[(3 * b + d) * width + f];
        }
      }
    }
    for (int group = 0; group < 3; ++group) {
      out.source[(3 * a + group) * width + f] = source[group];
      out.target[(3 * a + group) * width + f] = target[group];
    }
    out.value[a * width + f] = value;
    if constexpr (kVectors) {
      for (int d = 0; d < 3; ++d) {
        out.probe[(3 * a + d) * width + f] = probe[d];
        out.carried[(3 * a + d) * width + f] = carried[d];
      }
    }
  }
};

struct SumRowStrengthGradients {
  PairRows rows;
  PairEnds ends;
  RowStrengths in;
  RowStrengthGradients out;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t width = in.width, a = item / width, f = item - a * width;
    float total = 0.f, left = 0.f, probe[3] = {};
    for (int32_t place = rows.starts[a]; place < rows.starts[a + 1]; ++place) {
      const RowEntry entry = row_entry(ends, rows.entries[place]);
      const RadialEdge edge = edge_of(ends, entry, in.table);
      const int64_t b = entry.sender;
      const PairProjections p = project_pair(in.probe, a, b, width, f, edge);
      const float slope = silu_channel(strength_input(in, edge, a, b, p, f)).slope;
      const float dz = in.readout[f] * slope * out.strengths[entry.pair] * edge.envelope;
      total += dz;
      left += dz * in.left[b * width + f];
      const float own = dz * (in.mixing[f] + in.mixing[width + f] * p.other), mutual = dz * in.mixing[2 * width + f];
      for (int d = 0; d < 3; ++d) probe[d] += own * edge.u[d] + mutual * p.of_b[d];
    }
    out.total[a * width + f] = total;
    out.left[a * width + f] = left;
    for (int d = 0; d < 3; ++d) out.probe[(3 * a + d) * width + f] = probe[d];
  }
};

}  // namespace openmm_gnn::cuda
