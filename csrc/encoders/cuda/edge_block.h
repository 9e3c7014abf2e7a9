// What the kernels of ../messages.h share: one block = one atom, which takes its row of edges tile by tile.
//
// A thread has one channel of one strand: strand s takes edges s, s + strands, ... of a tile, and the strands' sums are
// added in their order at the end. Widths up to kEdgeThreads, so that every channel has a thread.
#pragma once

#include "encoders/radial_edge.h"
#include "encoders/messages.h"
#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

constexpr int kEdgeThreads = 256;
constexpr int kTileEdges = 64;          // of a tile, at most
constexpr int kTileProducts = 4096;     // one number for each edge of a tile and channel

inline bool fits_edge_rows(int64_t width, int64_t head_width) {
  return width > 0 && width % 16 == 0 && width <= kEdgeThreads && head_width > 0 && width % head_width == 0;
}

// How a block's threads are shared out.
struct EdgeLanes {
  int width, strands, tile;

  OPENMM_GNN_HOST_DEVICE explicit EdgeLanes(int64_t channels)
      : width(static_cast<int>(channels)),
        strands(kEdgeThreads / width),
        tile(kTileProducts / width < kTileEdges ? kTileProducts / width : kTileEdges) {}

  OPENMM_GNN_HOST_DEVICE int strand(int thread) const { return thread / width; }
  OPENMM_GNN_HOST_DEVICE int channel(int thread) const { return thread % width; }
  OPENMM_GNN_HOST_DEVICE bool idle(int thread) const { return thread >= strands * width; }
};

OPENMM_GNN_HOST_DEVICE float filter_value(const FilterTable& table, const EdgeFilter& filter, int64_t channel) {
  const float* row = table.values + filter.row + channel;
  float value = row[0] * filter.weight[0];
  for (int m = 1; m < 4; ++m) value += row[m * table.channels] * filter.weight[m];
  return value;
}

// The edges of a tile, as its threads read them.
struct EdgeTile {
  int64_t sender[kTileEdges];
  int32_t edge[kTileEdges];
  float u[kTileEdges][3];
  float envelope[kTileEdges];
  EdgeFilter filter[kTileEdges];
};

OPENMM_GNN_HOST_DEVICE void load_edge(const EdgeRows& rows, const EncoderEdges& geometry, const FilterTable* table,
                                      int32_t place, int slot, EdgeTile& tile) {
  const int32_t e = rows.order[place];
  tile.edge[slot] = e;
  tile.sender[slot] = rows.senders[e];
  if (geometry.envelope != nullptr) tile.envelope[slot] = geometry.envelope[e];
  if (table != nullptr) tile.filter[slot] = edge_filter(*table, geometry.places[e]);
  if (geometry.directions == nullptr) return;
  for (int d = 0; d < 3; ++d) tile.u[slot][d] = geometry.directions[3 * static_cast<int64_t>(e) + d];
}

// What a thread sums of its channel, and a block's room to add up what its strands have.
template <int kCount>
struct ChannelSums {
  float value[kCount];
};

template <int kCount>
struct StrandSums {
  float value[kCount][kEdgeThreads];
};

// Calls write(number, channel, total) for the `kCount` totals of every channel.
template <int kCount, class Block, class Sums, class Write>
OPENMM_GNN_HOST_DEVICE void add_strands(Block& block, const EdgeLanes& lanes, Sums& sums, StrandSums<kCount>& strands,
                                        const Write& write) {
  block.phase([&](int thread) {
    for (int m = 0; m < kCount; ++m) strands.value[m][thread] = sums[thread].value[m];
  });
  block.each_thread([&](int channel) {
    if (channel >= lanes.width) return;
    for (int m = 0; m < kCount; ++m) {
      float total = 0.f;
      for (int s = 0; s < lanes.strands; ++s) total += strands.value[m][s * lanes.width + channel];
      write(m, channel, total);
    }
  });
}

// A row of edges, tile by tile: load(place, slot) by one thread for each edge, then the steps, step(count, thread), each
// by every thread and with a barrier behind it.
template <class Block, class Load, class... Steps>
OPENMM_GNN_HOST_DEVICE void each_tile(Block& block, const EdgeRows& rows, int tile, const Load& load,
                                      const Steps&... steps) {
  const int64_t atom = block.index();
  const int32_t end = rows.starts[atom + 1];
  for (int32_t first = rows.starts[atom]; first < end; first += tile) {
    const int count = end - first < tile ? end - first : tile;
    block.phase([&](int thread) {
      if (thread < count) load(first + thread, thread);
    });
    (block.phase([&](int thread) { steps(count, thread); }), ...);
  }
}

// Turns the products of the edges of a tile into the weights of their heads, each in the place of its first product.
OPENMM_GNN_HOST_DEVICE void weigh_heads(float* products, int64_t width, int64_t head_width, const EdgeTile& tile,
                                        int count, int thread) {
  const int64_t heads = width / head_width;
  for (int64_t item = thread; item < count * heads; item += kEdgeThreads) {
    const int64_t k = item / heads;
    float* first = products + k * width + (item - k * heads) * head_width;
    float agreement = 0.f;
    for (int64_t m = 0; m < head_width; ++m) agreement += first[m];
    *first = silu_channel(agreement).value * tile.envelope[k];
  }
}

}  // namespace openmm_gnn::cuda
