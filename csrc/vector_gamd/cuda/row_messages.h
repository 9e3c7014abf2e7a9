// The loops over pairs of a network with vector features, as sums over the rows of pair_rows (../pair_rows.h).
//
// SumRowMessages, SumRowMessageGradients, SumRowStrengthGradients: one thread = one channel of one atom, which
// walks along the atom's row and keeps its sums in registers: no atomics, and the order of the sum is that of the list.
// The backward pass reads each pair from both its ends and computes the activations again, three SiLUs of 40 bytes of
// features each, instead of 12 atomic additions. What belongs to an edge alone, indices, unit vector, envelope and splines,
// is read and computed once for all channels, by one thread of the row, and lies in shared memory: the threads of a row
// take turns, each one edge of a stage of as many as the row has channels. Cost per end of a pair and channel, with vectors:
// 100 bytes of features read, mostly from the cache, and about 120 operations forward, 300 backward.
#pragma once

#include "vector_gamd/vector_pairs.h"
#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

constexpr int kRowThreads = 256;

// An edge of a stage; each thread of the block has one.
struct StagedEdge {
  RadialEdge edge;
  int64_t pair, sender;
};

struct RowStage {
  StagedEdge edges[kRowThreads];
};

// How a block's threads are shared out: one for each channel of as many atoms as there is room for.
struct RowLanes {
  int width, rows;

  OPENMM_GNN_HOST_DEVICE explicit RowLanes(int64_t channels)
      : width(static_cast<int>(channels)), rows(kRowThreads / width) {}

  OPENMM_GNN_HOST_DEVICE int row(int thread) const { return thread / width; }
  OPENMM_GNN_HOST_DEVICE int channel(int thread) const { return thread - row(thread) * width; }
  OPENMM_GNN_HOST_DEVICE int64_t first(int64_t block) const { return block * rows; }
  // The atom of a thread; num_atoms for one that has none.
  OPENMM_GNN_HOST_DEVICE int64_t atom(int64_t block, int thread, int64_t num_atoms) const {
    const int64_t a = first(block) + row(thread);
    return row(thread) < rows && a < num_atoms ? a : num_atoms;
  }
};

inline int64_t row_blocks(int64_t num_atoms, int64_t width) {
  return blocks_for(num_atoms, RowLanes(width).rows);
}

// Calls take(thread, atom, channel, edge) for every edge of the rows of the block's atoms, in the order of each row.
template <class Block, class Ends, class Take>
OPENMM_GNN_HOST_DEVICE void each_staged_edge(Block& block, RowStage& stage, const PairRows& rows, const Ends& ends,
                                             const SplineTable& table, int64_t width, const Take& take) {
  const RowLanes lanes(width);
  const int64_t index = block.index();
  int32_t longest = 0;
  for (int r = 0; r < lanes.rows && lanes.first(index) + r < ends.num_atoms; ++r) {
    const int32_t* row = rows.starts + lanes.first(index) + r;
    longest = longest < row[1] - row[0] ? row[1] - row[0] : longest;
  }
  for (int32_t begin = 0; begin < longest; begin += lanes.width) {
    block.phase([&](int thread) {
      const int64_t a = lanes.atom(index, thread, ends.num_atoms);
      if (a == ends.num_atoms) return;
      const int32_t place = rows.starts[a] + begin + lanes.channel(thread);
      if (place >= rows.starts[a + 1]) return;
      const RowEntry entry = row_entry(ends, rows.entries[place]);
      stage.edges[thread] = {edge_of(ends, entry, table), entry.pair, entry.sender};
    });
    block.phase([&](int thread) {
      const int64_t a = lanes.atom(index, thread, ends.num_atoms);
      if (a == ends.num_atoms) return;
      const int32_t left = rows.starts[a + 1] - rows.starts[a] - begin, count = left < lanes.width ? left : lanes.width;
      const StagedEdge* edges = stage.edges + lanes.row(thread) * lanes.width;
      for (int32_t k = 0; k < count; ++k) take(thread, a, lanes.channel(thread), edges[k]);
    });
  }
}

// Calls write(thread, atom, channel) for the threads that have one.
template <class Block, class Write>
OPENMM_GNN_HOST_DEVICE void each_row_channel(Block& block, int64_t width, int64_t num_atoms, const Write& write) {
  const RowLanes lanes(width);
  block.each_thread([&](int thread) {
    const int64_t a = lanes.atom(block.index(), thread, num_atoms);
    if (a < num_atoms) write(thread, a, lanes.channel(thread));
  });
}

template <bool kVectors, class Ends>
struct SumRowMessages {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowStage;
  struct Sums {
    float scalar, vector[3];
  };
  PairRows rows;
  Ends ends;
  RowMessages in;
  float *scalars, *vectors;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t width = in.width;
    typename Block::template PerThread<Sums> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_staged_edge(block, shared, rows, ends, in.table, width,
                     [&](int thread, int64_t a, int64_t f, const StagedEdge& staged) {
                       take_in(sums[thread], a, f, staged.edge, staged.sender);
                     });
    each_row_channel(block, width, in.num_atoms, [&](int thread, int64_t a, int64_t f) {
      scalars[a * width + f] = sums[thread].scalar;
      for (int d = 0; d < 3; ++d) vectors[(3 * a + d) * width + f] = sums[thread].vector[d];
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(Sums& sums, int64_t a, int64_t f, const RadialEdge& edge, int64_t b) const {
    const int64_t width = in.width;
    PairProjections p{};
    if (kVectors) p = project_pair(in.probe, a, b, width, f, edge);
    float message[3] = {0.f, 0.f, 0.f};
    for (int group = 0; group < (kVectors ? 3 : 2); ++group) {
      const float z = message_inputs<kVectors>(in, edge, a, b, p, group * width + f).z[0];
      message[group] = silu_channel(z).value * edge.envelope;
    }
    sums.scalar += message[0] * in.value[b * width + f];
    for (int d = 0; d < 3; ++d) {
      sums.vector[d] += message[1] * edge.u[d];
      if (kVectors) sums.vector[d] += message[2] * in.carried[(3 * b + d) * width + f];
    }
  }
};

template <bool kVectors, class Ends>
struct SumRowMessageGradients {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowStage;
  struct Sums {
    float source[3], target[3], value, probe[3], carried[3];
  };
  PairRows rows;
  Ends ends;
  RowMessages in;
  RowMessageGradients out;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t width = in.width;
    typename Block::template PerThread<Sums> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_staged_edge(block, shared, rows, ends, in.table, width,
                     [&](int thread, int64_t a, int64_t f, const StagedEdge& staged) {
                       take_in(sums[thread], a, f, staged.edge, staged.sender);
                     });
    each_row_channel(block, width, in.num_atoms, [&](int thread, int64_t a, int64_t f) {
      const Sums& own = sums[thread];
      for (int group = 0; group < 3; ++group) {
        out.source[(3 * a + group) * width + f] = own.source[group];
        out.target[(3 * a + group) * width + f] = own.target[group];
      }
      out.value[a * width + f] = own.value;
      if constexpr (kVectors) {
        for (int d = 0; d < 3; ++d) {
          out.probe[(3 * a + d) * width + f] = own.probe[d];
          out.carried[(3 * a + d) * width + f] = own.carried[d];
        }
      }
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(Sums& sums, int64_t a, int64_t f, const RadialEdge& edge, int64_t b) const {
    const int64_t width = in.width;
    PairProjections p{};
    if (kVectors) p = project_pair(in.probe, a, b, width, f, edge);
    const PairGradients g = message_gradients<kVectors>(in, out, edge, a, b, p, f);
    for (int group = 0; group < 3; ++group) {
      sums.target[group] += g.dz[0][group];
      sums.source[group] += g.dz[1][group];
    }
    sums.value += g.message[1][0] * out.scalars[b * width + f];
    if constexpr (kVectors) {
      for (int d = 0; d < 3; ++d) {
        sums.probe[d] += g.own * edge.u[d] + g.mutual * p.of_b[d];
        sums.carried[d] += g.message[1][2] * out.vectors[(3 * b + d) * width + f];
      }
    }
  }
};

template <class Ends>
struct SumRowStrengthGradients {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowStage;
  struct Sums {
    float total, left, probe[3];
  };
  PairRows rows;
  Ends ends;
  RowStrengths in;
  RowStrengthGradients out;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t width = in.width;
    typename Block::template PerThread<Sums> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_staged_edge(block, shared, rows, ends, in.table, width,
                     [&](int thread, int64_t a, int64_t f, const StagedEdge& staged) {
                       take_in(sums[thread], a, f, staged);
                     });
    each_row_channel(block, width, in.num_atoms, [&](int thread, int64_t a, int64_t f) {
      out.total[a * width + f] = sums[thread].total;
      out.left[a * width + f] = sums[thread].left;
      for (int d = 0; d < 3; ++d) out.probe[(3 * a + d) * width + f] = sums[thread].probe[d];
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(Sums& sums, int64_t a, int64_t f, const StagedEdge& staged) const {
    const int64_t width = in.width, b = staged.sender;
    const RadialEdge& edge = staged.edge;
    const PairProjections p = project_pair(in.probe, a, b, width, f, edge);
    const float slope = silu_channel(strength_input(in, edge, a, b, p, f)).slope;
    const float dz = in.readout[f] * slope * out.strengths[staged.pair] * edge.envelope;
    sums.total += dz;
    sums.left += dz * in.left[b * width + f];
    const float own = dz * (in.mixing[f] + in.mixing[width + f] * p.other), mutual = dz * in.mixing[2 * width + f];
    for (int d = 0; d < 3; ++d) sums.probe[d] += own * edge.u[d] + mutual * p.of_b[d];
  }
};

}  // namespace openmm_gnn::cuda
