// What a pair gets from the sum over its channels, in a network with vector features: the decoder's strength, and the
// gradients by the pair's vector.
//
// One thread = one channel of one pair; the channels of a pair are summed in shared memory, in an order that is always
// the same. Cost per pair and channel, with vectors: 100 bytes read, mostly from the cache, and 60 (strength) to 300
// operations (gradient of the messages). A pair beyond the cutoff costs its two indices and its distance, and gets 0;
// a distance that is not a number, by which a list says that it is invalid, gets NaN.
#pragma once

#include "vector_gamd/cuda/row_messages.h"

namespace openmm_gnn::cuda {

constexpr int kPairThreads = 256;
constexpr int kSumLanes = 16;  // widths are multiples of it

// Which pair and channel a thread has; widths above a block's threads are not supported.
struct PairChannel {
  int64_t pair, channel;
  bool valid;
};

OPENMM_GNN_HOST_DEVICE PairChannel pair_channel(int64_t block, int thread, int64_t width, int64_t num_pairs) {
  const int64_t pairs = kPairThreads / width, local = thread / width, pair = block * pairs + local;
  return {pair, thread - local * width, local < pairs && pair < num_pairs};
}

inline int64_t pair_blocks(int64_t num_pairs, int64_t width) {
  return blocks_for(num_pairs, static_cast<int>(kPairThreads / width));
}

template <int kValues>
struct SumShared {
  float values[kValues][kPairThreads];
};

// Sums over the channels of each pair of the block; afterwards the pair's first thread calls finish(thread, sums).
template <int kValues, class Block, class Finish>
OPENMM_GNN_HOST_DEVICE void sum_channels(Block& block, SumShared<kValues>& shared, int64_t width, const Finish& finish) {
  block.phase([&](int thread) {
    const int local = thread / static_cast<int>(width), channel = thread - local * static_cast<int>(width);
    if (channel >= kSumLanes || local >= kPairThreads / width) return;
    for (int v = 0; v < kValues; ++v) {
      float sum = shared.values[v][thread];
      for (int lane = channel + kSumLanes; lane < width; lane += kSumLanes) {
        sum += shared.values[v][local * static_cast<int>(width) + lane];
      }
      shared.values[v][thread] = sum;
    }
  });
  block.each_thread([&](int thread) {
    const int local = thread / static_cast<int>(width), channel = thread - local * static_cast<int>(width);
    if (channel != 0 || local >= kPairThreads / width) return;
    float sums[kValues];
    for (int v = 0; v < kValues; ++v) {
      sums[v] = 0.f;
      for (int lane = 0; lane < kSumLanes; ++lane) sums[v] += shared.values[v][thread + lane];
    }
    finish(thread, sums);
  });
}

// The pair of a thread as seen from its first atom, if it is one within the cutoff.
struct PairOfThread {
  PairChannel mine;
  RowEntry entry;
  bool within;
};

template <class Ends>
OPENMM_GNN_HOST_DEVICE PairOfThread pair_of(int64_t block, int thread, int64_t width, const Ends& ends, float cutoff) {
  PairOfThread found{pair_channel(block, thread, width, ends.count), {0, -1, -1, true}, false};
  if (!found.mine.valid) return found;
  found.entry = row_entry(ends, static_cast<int32_t>(2 * found.mine.pair));
  found.within = ends.known(found.mine.pair) && ends.distances[found.mine.pair] < cutoff;
  return found;
}

// NaN where the pair's distance is, or where it is neither padding nor of atoms and a type that there are; else 0.
template <class Ends>
OPENMM_GNN_HOST_DEVICE float zero_or_nan(const Ends& ends, int64_t pair) {
  const float distance = ends.distances[pair];
  const bool valid = distance == distance && (ends.padding(pair) || ends.known(pair));
  return valid ? 0.f : NAN;
}

template <class Ends>
struct PairStrengthsKernel {
  static constexpr int kThreads = kPairThreads;
  using Shared = SumShared<1>;
  Ends ends;
  RowStrengths in;
  float* strengths;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t index = block.index();
    block.phase([&](int thread) {
      const PairOfThread of = pair_of(index, thread, in.width, ends, in.table.cutoff);
      float term = 0.f;
      if (of.within) {
        const RadialEdge edge = edge_of(ends, of.entry, in.table);
        const int64_t a = of.entry.receiver, b = of.entry.sender, f = of.mine.channel;
        const PairProjections p = project_pair(in.probe, a, b, in.width, f, edge);
        term = in.readout[f] * silu_channel(strength_input(in, edge, a, b, p, f)).value * edge.envelope;
      }
      shared.values[0][thread] = term;
    });
    sum_channels<1>(block, shared, in.width, [&](int thread, const float (&sums)[1]) {
      const PairChannel mine = pair_channel(index, thread, in.width, ends.count);
      if (mine.valid) strengths[mine.pair] = sums[0] + zero_or_nan(ends, mine.pair);
    });
  }
};

// Writes the gradient by a pair's vector from the sums of those by its unit vector and its distance; or adds it.
template <class Ends>
OPENMM_GNN_HOST_DEVICE void write_vector_gradient(int64_t index, int thread, int64_t width, const Ends& ends,
                                                  const SplineTable& table, const float (&sums)[4], bool add,
                                                  float* gradients) {
  const PairOfThread of = pair_of(index, thread, width, ends, table.cutoff);
  if (!of.mine.valid) return;
  float gradient[3];
  if (of.within) {
    vector_gradient(edge_of(ends, of.entry, table), {sums[0], sums[1], sums[2]}, sums[3], gradient);
  } else {
    for (int d = 0; d < 3; ++d) gradient[d] = zero_or_nan(ends, of.mine.pair);
  }
  float* to = gradients + 3 * of.mine.pair;
  for (int d = 0; d < 3; ++d) to[d] = add ? to[d] + gradient[d] : gradient[d];
}

template <bool kVectors, class Ends>
struct PairMessageGradientsKernel {
  static constexpr int kThreads = kPairThreads;
  using Shared = SumShared<4>;
  Ends ends;
  RowMessages in;
  RowMessageGradients out;
  bool add;  // to what the pairs' vectors have

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t index = block.index();
    block.phase([&](int thread) {
      const PairOfThread of = pair_of(index, thread, in.width, ends, in.table.cutoff);
      float terms[4] = {0.f, 0.f, 0.f, 0.f};
      if (of.within) {
        const RadialEdge edge = edge_of(ends, of.entry, in.table);
        const int64_t a = of.entry.receiver, b = of.entry.sender, f = of.mine.channel;
        PairProjections p{};
        if (kVectors) p = project_pair(in.probe, a, b, in.width, f, edge);
        const PairGradients g = message_gradients<kVectors>(in, out, edge, a, b, p, f);
        for (int d = 0; d < 3; ++d) terms[d] = g.du[d];
        terms[3] = g.dr;
      }
      for (int v = 0; v < 4; ++v) shared.values[v][thread] = terms[v];
    });
    sum_channels<4>(block, shared, in.width, [&](int thread, const float (&sums)[4]) {
      write_vector_gradient(index, thread, in.width, ends, in.table, sums, add, out.pair_vectors);
    });
  }
};

template <class Ends>
struct PairStrengthGradientsKernel {
  static constexpr int kThreads = kPairThreads;
  using Shared = SumShared<4>;
  Ends ends;
  RowStrengths in;
  RowStrengthGradients out;
  bool add;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t index = block.index();
    block.phase([&](int thread) {
      const PairOfThread of = pair_of(index, thread, in.width, ends, in.table.cutoff);
      float terms[4] = {0.f, 0.f, 0.f, 0.f};
      if (of.within) {
        const RadialEdge edge = edge_of(ends, of.entry, in.table);
        const int64_t a = of.entry.receiver, b = of.entry.sender, f = of.mine.channel, width = in.width;
        const PairProjections p = project_pair(in.probe, a, b, width, f, edge);
        const ActivatedChannel activated = silu_channel(strength_input(in, edge, a, b, p, f));
        const float arriving = in.readout[f] * out.strengths[of.entry.pair];
        const float dz = arriving * activated.slope * edge.envelope;
        const float own = dz * (in.mixing[f] + in.mixing[width + f] * p.other);
        const float other = dz * (in.mixing[f] + in.mixing[width + f] * p.own);
        for (int d = 0; d < 3; ++d) terms[d] = own * p.of_a[d] - other * p.of_b[d];
        terms[3] = dz * spline(in.table, edge, edge.slope, f) + arriving * activated.value * edge.envelope_slope;
      }
      for (int v = 0; v < 4; ++v) shared.values[v][thread] = terms[v];
    });
    sum_channels<4>(block, shared, in.width, [&](int thread, const float (&sums)[4]) {
      write_vector_gradient(index, thread, in.width, ends, in.table, sums, add, out.pair_vectors);
    });
  }
};

}  // namespace openmm_gnn::cuda
