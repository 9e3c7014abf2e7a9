// The attention of encoders over rows of edges (edge_block.h): of TorchMD-ET in one kernel, of ViSNet in two, between
// which its edges' features go through a matrix.
//
// The agreement of a head sums over its channels, which are different threads: a tile's products go to shared memory,
// where one thread for each edge and head turns them into the weight of that head. Cost per edge and channel of
// TorchMD-ET: 20 floats of tables and 7 of the sender, mostly from the second-level cache, and about 60 operations;
// of what belongs to an edge alone nothing is stored. In plain PyTorch some 40 floats per edge and channel go to
// device memory and come back.
#pragma once

#include "encoders/cuda/edge_block.h"

namespace openmm_gnn::cuda {

struct AttentionRowsKernel {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    EdgeTile tile;
    float products[kTileProducts];
    StrandSums<4> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  AttentionInputs in;
  float *scalars, *vectors;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const EdgeLanes lanes(width);
    const float* query = in.node + 5 * width * a;
    typename Block::template PerThread<ChannelSums<4>> sums(block);  // scalars, and the components of vectors
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, lanes.tile,
        [&](int32_t place, int slot) { load_edge(rows, geometry, &in.filters, place, slot, shared.tile); },
        [&](int count, int thread) {
          if (lanes.idle(thread)) return;
          const int f = lanes.channel(thread);
          for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
            const float key = in.node[(5 * shared.tile.sender[k] + 1) * width + f];
            shared.products[k * width + f] = query[f] * key * filter_value(in.filters, shared.tile.filter[k], f);
          }
        },
        [&](int count, int thread) {
          weigh_heads(shared.products, width, in.head_width, shared.tile, count, thread);
        },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) take_in(shared, lanes, count, thread, sums[thread].value);
        });
    add_strands(block, lanes, sums, shared.strands, [&](int m, int f, float total) {
      *(m == 0 ? scalars + a * width + f : vectors + (3 * a + m - 1) * width + f) = total;
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(const Shared& shared, const EdgeLanes& lanes, int count, int thread,
                                      float (&sums)[4]) const {
    const int64_t width = in.width, f = lanes.channel(thread), head = f / in.head_width * in.head_width;
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const int64_t b = shared.tile.sender[k];
      const EdgeFilter& filter = shared.tile.filter[k];
      const float* sender = in.node + (5 * b + 2) * width + f;
      sums[0] += sender[0] * filter_value(in.filters, filter, width + f) * shared.products[k * width + head];
      const float scale = sender[width] * filter_value(in.filters, filter, 2 * width + f);
      const float along = sender[2 * width] * filter_value(in.filters, filter, 3 * width + f);
      for (int d = 0; d < 3; ++d) {
        sums[1 + d] += in.vectors[(3 * b + d) * width + f] * scale + along * shared.tile.u[k][d];
      }
    }
  }
};

// Of ViSNet: each edge's message (E, width), and their sums.
struct EdgeAttentionRowsKernel {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    EdgeTile tile;
    float products[kTileProducts];
    StrandSums<1> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  EdgeLayerInputs in;
  float *messages, *scalars;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const EdgeLanes lanes(width);
    typename Block::template PerThread<ChannelSums<1>> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, lanes.tile,
        [&](int32_t place, int slot) { load_edge(rows, geometry, nullptr, place, slot, shared.tile); },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) multiply(shared, lanes, a, count, thread);
        },
        [&](int count, int thread) {
          weigh_heads(shared.products, width, in.head_width, shared.tile, count, thread);
        },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) take_in(shared, lanes, count, thread, sums[thread].value[0]);
        });
    add_strands(block, lanes, sums, shared.strands,
                [&](int, int f, float total) { scalars[a * width + f] = total; });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void multiply(Shared& shared, const EdgeLanes& lanes, int64_t a, int count, int thread) const {
    const int64_t width = in.width, f = lanes.channel(thread);
    const float query = in.node[3 * width * a + f];
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const float filter = silu_channel(in.filters[shared.tile.edge[k] * in.filter_width + f]).value;
      shared.products[k * width + f] = query * in.node[(3 * shared.tile.sender[k] + 1) * width + f] * filter;
    }
  }

  OPENMM_GNN_HOST_DEVICE void take_in(const Shared& shared, const EdgeLanes& lanes, int count, int thread,
                                      float& sum) const {
    const int64_t width = in.width, f = lanes.channel(thread), head = f / in.head_width * in.head_width;
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const int64_t e = shared.tile.edge[k];
      const float value = in.node[(3 * shared.tile.sender[k] + 2) * width + f];
      const float filter = silu_channel(in.filters[e * in.filter_width + width + f]).value;
      const float message = value * filter * shared.products[k * width + head];
      messages[e * width + f] = message;
      sum += message;
    }
  }
};

// Of ViSNet: the sums of the vectors that edges carry, and what edges become, (E, width).
struct EdgeVectorRowsKernel {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    EdgeTile tile;
    StrandSums<3> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  EdgeLayerInputs in;
  float *vectors, *changed;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const EdgeLanes lanes(width);
    typename Block::template PerThread<ChannelSums<3>> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, kTileEdges,
        [&](int32_t place, int slot) { load_edge(rows, geometry, nullptr, place, slot, shared.tile); },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) take_in(shared, lanes, a, count, thread, sums[thread].value);
        });
    add_strands(block, lanes, sums, shared.strands,
                [&](int d, int f, float total) { vectors[(3 * a + d) * width + f] = total; });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(const Shared& shared, const EdgeLanes& lanes, int64_t a, int count, int thread,
                                      float (&sums)[3]) const {
    const int64_t width = in.width, f = lanes.channel(thread);
    float target[3] = {0.f, 0.f, 0.f};
    if (in.mixed != nullptr) {
      for (int d = 0; d < 3; ++d) target[d] = in.mixed[(15 * a + 5 * d + 3) * width + f];
    }
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const int64_t b = shared.tile.sender[k], e = shared.tile.edge[k];
      const float(&u)[3] = shared.tile.u[k];
      const float late = in.smooth ? late_cutoff(geometry.envelope[e]) : 1.f;
      const float scale = silu_channel(in.scales[2 * e * width + f]).value * late;
      const float along = silu_channel(in.scales[(2 * e + 1) * width + f]).value * late;
      for (int d = 0; d < 3; ++d) sums[d] += in.vectors[(3 * b + d) * width + f] * scale + along * u[d];
      if (in.mixed == nullptr) continue;
      // (t - (t u) u) (s - (s u) u) for a unit vector u or zero.
      float product = 0.f, of_target = 0.f, of_source = 0.f;
      for (int d = 0; d < 3; ++d) {
        const float source = in.mixed[(15 * b + 5 * d + 4) * width + f];
        product += target[d] * source;
        of_target += target[d] * u[d];
        of_source += source * u[d];
      }
      const float gate = silu_channel(in.filters[e * in.filter_width + 2 * width + f]).value;
      changed[e * width + f] = in.edges[e * width + f] + gate * (product - of_target * of_source);
    }
  }
};

// The functions of a table at the places of edges, (E, channels); one thread = one channel of one edge.
struct Filters {
  const double* places;
  FilterTable table;
  float* filters;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t e = item / table.channels;
    filters[item] = filter_value(table, edge_filter(table, places[e]), item - e * table.channels);
  }
};

}  // namespace openmm_gnn::cuda
