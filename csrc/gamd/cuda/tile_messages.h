// GAMD's message block: what four neighbouring atoms receive (../gamd_tiles.h, gamd_messages).
//
// One block = 4 atoms, whose messages stand together in the rows of pair_rows.h and are taken 64 at a time: read the
// edges' features, multiply, add what sender and receiver give, SiLU, multiply, gate the sender's features, add up. One
// thread = one channel in that last step; it walks along the messages and writes a sum whenever the receiver changes: no
// atomics, and the order is that of the list. Four atoms of water have about 120 messages, so few rows are empty.
// Cost per message at width 128: 512 bytes of features and as much of each of three rows of atoms, mostly from the
// cache; 65,536 operations in the two products.
#pragma once

#include "gamd/cuda/tile_product.h"

namespace openmm_gnn::cuda {

constexpr int kAtomsOfTile = 4;

template <int kWidth>
struct TileMessages {
  static constexpr int kThreads = kTileThreads;
  using Product = TileProduct<kWidth>;
  using Shared = typename Product::Shared;
  GamdMessages in;

  // A channel's running sum, and the atom it belongs to.
  struct Walk {
    float sum;
    int64_t atom;
  };

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t first = block.index() * kAtomsOfTile;
    const int64_t last = first + kAtomsOfTile < in.num_atoms ? first + kAtomsOfTile : in.num_atoms;
    const int64_t end = in.starts[last];
    typename Block::template PerThread<Walk> walks(block);
    block.each_thread([&](int thread) { walks[thread] = Walk{0.f, first}; });
    for (int64_t begin = in.starts[first]; begin < end; begin += kTileRows) {
      const int rows = static_cast<int>(end - begin < kTileRows ? end - begin : kTileRows);
      block.phase([&](int thread) { load_entry(shared, begin, rows, thread); });
      block.phase([&](int thread) { load_features(shared, thread); });
      Product::run(block, shared, in.edge);
      block.phase([&](int thread) { activate(shared, thread); });
      Product::run(block, shared, in.gate);
      block.phase([&](int thread) {
        if (thread < kWidth) add_up(shared, rows, thread, walks[thread]);
      });
    }
    block.each_thread([&](int thread) {
      if (thread >= kWidth) return;
      for (Walk& walk = walks[thread]; walk.atom < last;) write(walk, thread);
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void load_entry(Shared& shared, int64_t begin, int rows, int thread) const {
    if (thread >= kTileRows) return;
    if (thread >= rows) {
      shared.pair[thread] = -1;
      return;
    }
    const int32_t entry = in.entries[begin + thread];
    const int64_t pair = entry >> 1, i = in.pairs.pairs[pair], j = in.pairs.pairs[in.pairs.count + pair];
    const bool to_first = (entry & 1) == 0;
    // From `count` on, a place is one of the backward edges, j -> i.
    shared.pair[thread] = to_first ? pair + in.pairs.count : pair;
    shared.receiver[thread] = static_cast<int32_t>(to_first ? i : j);
    shared.sender[thread] = static_cast<int32_t>(to_first ? j : i);
    shared.envelope[thread] = in.envelope[pair];
  }

  OPENMM_GNN_HOST_DEVICE void load_features(Shared& shared, int thread) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      const int64_t place = shared.pair[row], count = in.pairs.count;
      const float* edges = place >= count ? in.backward + (place - count) * kWidth : in.forward + place * kWidth;
      shared.x[row][channel] = place < 0 ? 0.f : edges[channel];
    });
  }

  OPENMM_GNN_HOST_DEVICE void activate(Shared& shared, int thread) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      if (shared.pair[row] < 0) return;
      const float z = shared.x[row][channel] + in.edge.bias[channel] +
                      in.source[static_cast<int64_t>(shared.sender[row]) * kWidth + channel] +
                      in.target[static_cast<int64_t>(shared.receiver[row]) * kWidth + channel];
      shared.x[row][channel] = silu_channel(z).value;
    });
  }

  OPENMM_GNN_HOST_DEVICE void add_up(const Shared& shared, int rows, int channel, Walk& walk) const {
    for (int row = 0; row < rows; ++row) {
      while (walk.atom < shared.receiver[row]) write(walk, channel);
      const float gate = shared.x[row][channel] + in.gate.bias[channel];
      walk.sum += gate * shared.envelope[row] *
                  in.hidden[static_cast<int64_t>(shared.sender[row]) * kWidth + channel];
    }
  }

  OPENMM_GNN_HOST_DEVICE void write(Walk& walk, int channel) const {
    in.sums[walk.atom * kWidth + channel] = walk.sum;
    walk = Walk{0.f, walk.atom + 1};
  }
};

}  // namespace openmm_gnn::cuda
