// Gradients of AttentionRowsKernel (attention_rows.h) by features and geometry; weights and their tables are constants.
//
// Each edge is met twice, by the block of its receiver, which sums what goes to the query and has the gradients of
// directions, envelope and place, and by the block of its sender, which sums what goes to key, values and vectors: no
// atomics. Both compute the activations again. With a receiver i, a sender j, a = q_i k_j f_k summed over a head,
// w = SiLU(a) c, s_i = sum v1_j f1 w and x_i = sum x_j v2_j f2 + u v3_j f3, and a prime for a gradient:
//   D = sum over the head of s' v1_j f1, a' = D c SiLU'(a), c' = sum over heads of D SiLU(a).
// Cost per edge and channel: 30 floats of tables and 20 of the other atom, and about 200 operations, in both together.
#pragma once

#include "encoders/cuda/attention_rows.h"

namespace openmm_gnn::cuda {

constexpr int kGradientProducts = 1024;  // of a tile; several arrays of it have to fit into shared memory

// What both kernels know of a tile: afterwards the first place of each head holds w and a'.
struct AttentionTile {
  EdgeTile edges;
  float weight[kGradientProducts], agreement[kGradientProducts];
  float envelope[kGradientProducts];  // by edge and head: its part of c'
};

struct AttentionGradientLanes : EdgeLanes {
  OPENMM_GNN_HOST_DEVICE explicit AttentionGradientLanes(int64_t channels) : EdgeLanes(channels) {
    tile = kGradientProducts / width < kTileEdges ? kGradientProducts / width : kTileEdges;
  }
};

OPENMM_GNN_HOST_DEVICE void attention_products(const AttentionInputs& in, const float* scalars, int64_t receiver,
                                               int64_t sender, int k, int64_t f, AttentionTile& tile) {
  const int64_t width = in.width;
  const float* from = in.node + (5 * sender + 1) * width + f;
  const EdgeFilter& filter = tile.edges.filter[k];
  tile.weight[k * width + f] = in.node[5 * receiver * width + f] * from[0] * filter_value(in.filters, filter, f);
  tile.agreement[k * width + f] =
      scalars[receiver * width + f] * from[width] * filter_value(in.filters, filter, width + f);
}

OPENMM_GNN_HOST_DEVICE void attention_heads(const AttentionInputs& in, int count, int thread, AttentionTile& tile) {
  const int64_t heads = in.width / in.head_width;
  for (int64_t item = thread; item < count * heads; item += kEdgeThreads) {
    const int64_t k = item / heads, start = k * in.width + (item - k * heads) * in.head_width;
    float agreement = 0.f, arriving = 0.f;
    for (int64_t m = start; m < start + in.head_width; ++m) {
      agreement += tile.weight[m];
      arriving += tile.agreement[m];
    }
    const ActivatedChannel active = silu_channel(agreement);
    const float envelope = tile.edges.envelope[k];
    tile.weight[start] = active.value * envelope;
    tile.agreement[start] = arriving * envelope * active.slope;
    tile.envelope[item] = arriving * active.value;
  }
}

// Of the query, and of each edge's geometry unless that is null; one block = one receiver.
struct AttentionReceiverGradients {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    AttentionTile tile;
    EdgeFilter slope[kTileEdges];
    float parts[4][kGradientProducts];  // of the direction and the place, by edge and channel
    StrandSums<1> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  AttentionInputs in;
  AttentionGradients out;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const AttentionGradientLanes lanes(width);
    typename Block::template PerThread<ChannelSums<1>> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, lanes.tile,
        [&](int32_t place, int slot) {
          load_edge(rows, geometry, &in.filters, place, slot, shared.tile.edges);
          shared.slope[slot] = filter_slopes(in.filters, geometry.places[shared.tile.edges.edge[slot]]);
        },
        [&](int count, int thread) {
          if (lanes.idle(thread)) return;
          for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
            const int64_t b = shared.tile.edges.sender[k];
            attention_products(in, out.from_scalars, a, b, k, lanes.channel(thread), shared.tile);
          }
        },
        [&](int count, int thread) { attention_heads(in, count, thread, shared.tile); },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) take_in(shared, lanes, a, count, thread, sums[thread].value[0]);
        },
        [&](int count, int thread) {
          if (out.places != nullptr) write_geometry(shared, count, thread);
        });
    add_strands(block, lanes, sums, shared.strands,
                [&](int, int f, float total) { out.node[5 * a * width + f] = total; });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(Shared& shared, const EdgeLanes& lanes, int64_t a, int count, int thread,
                                      float& query_sum) const {
    const int64_t width = in.width, f = lanes.channel(thread), head = f / in.head_width * in.head_width;
    const float query = in.node[5 * a * width + f], from = out.from_scalars[a * width + f];
    float from_vector[3];
    for (int d = 0; d < 3; ++d) from_vector[d] = out.from_vectors[(3 * a + d) * width + f];
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const EdgeTile& edges = shared.tile.edges;
      const int64_t b = edges.sender[k];
      const EdgeFilter& filter = edges.filter[k];
      const float* sender = in.node + (5 * b + 1) * width + f;
      const float agreement = shared.tile.agreement[k * width + head];
      query_sum += agreement * sender[0] * filter_value(in.filters, filter, f);
      if (out.places == nullptr) continue;
      const EdgeFilter& slope = shared.slope[k];
      float carried = 0.f, along = 0.f;
      for (int d = 0; d < 3; ++d) {
        carried += from_vector[d] * in.vectors[(3 * b + d) * width + f];
        along += from_vector[d] * edges.u[k][d];
      }
      float place = agreement * query * sender[0] * filter_value(in.filters, slope, f);
      place += from * sender[width] * shared.tile.weight[k * width + head] * filter_value(in.filters, slope, width + f);
      place += carried * sender[2 * width] * filter_value(in.filters, slope, 2 * width + f);
      place += along * sender[3 * width] * filter_value(in.filters, slope, 3 * width + f);
      const float third = sender[3 * width] * filter_value(in.filters, filter, 3 * width + f);
      for (int d = 0; d < 3; ++d) shared.parts[d][k * width + f] = from_vector[d] * third;
      shared.parts[3][k * width + f] = place;
    }
  }

  // One thread = one of five numbers of one edge, a sum over channels or heads.
  OPENMM_GNN_HOST_DEVICE void write_geometry(const Shared& shared, int count, int thread) const {
    const int64_t heads = in.width / in.head_width;
    for (int item = thread; item < 5 * count; item += kThreads) {
      const int k = item / 5, which = item - 5 * k;
      const int64_t e = shared.tile.edges.edge[k], terms = which < 4 ? in.width : heads;
      const float* values = (which < 4 ? shared.parts[which] : shared.tile.envelope) + k * terms;
      float sum = 0.f;
      for (int64_t m = 0; m < terms; ++m) sum += values[m];
      if (which < 3) {
        out.directions[3 * e + which] = sum;
      } else {
        (which == 3 ? out.places : out.envelope)[e] = sum;
      }
    }
  }
};

// Of key, values and vectors; one block = one sender, along whose row the "senders" are the receivers.
struct AttentionSenderGradients {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    AttentionTile tile;
    StrandSums<7> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  AttentionInputs in;
  AttentionGradients out;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const AttentionGradientLanes lanes(width);
    // Key, three values, three components of the vectors.
    typename Block::template PerThread<ChannelSums<7>> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, lanes.tile,
        [&](int32_t place, int slot) { load_edge(rows, geometry, &in.filters, place, slot, shared.tile.edges); },
        [&](int count, int thread) {
          if (lanes.idle(thread)) return;
          for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
            const int64_t b = shared.tile.edges.sender[k];
            attention_products(in, out.from_scalars, b, a, k, lanes.channel(thread), shared.tile);
          }
        },
        [&](int count, int thread) { attention_heads(in, count, thread, shared.tile); },
        [&](int count, int thread) {
          if (!lanes.idle(thread)) take_in(shared.tile, lanes, a, count, thread, sums[thread].value);
        });
    add_strands(block, lanes, sums, shared.strands, [&](int m, int f, float total) {
      *(m < 4 ? out.node + (5 * a + 1 + m) * width + f : out.carried + (3 * a + m - 4) * width + f) = total;
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(const AttentionTile& tile, const EdgeLanes& lanes, int64_t a, int count,
                                      int thread, float (&sums)[7]) const {
    const int64_t width = in.width, f = lanes.channel(thread), head = f / in.head_width * in.head_width;
    const float second = in.node[(5 * a + 3) * width + f];
    float own[3];
    for (int d = 0; d < 3; ++d) own[d] = in.vectors[(3 * a + d) * width + f];
    for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
      const int64_t b = tile.edges.sender[k];
      const EdgeFilter& filter = tile.edges.filter[k];
      const float scale = filter_value(in.filters, filter, 2 * width + f);
      float carried = 0.f, along = 0.f;
      for (int d = 0; d < 3; ++d) {
        const float from = out.from_vectors[(3 * b + d) * width + f];
        carried += from * own[d];
        along += from * tile.edges.u[k][d];
        sums[4 + d] += from * second * scale;
      }
      sums[0] += tile.agreement[k * width + head] * in.node[5 * b * width + f] * filter_value(in.filters, filter, f);
      sums[1] += out.from_scalars[b * width + f] * tile.weight[k * width + head] *
                 filter_value(in.filters, filter, width + f);
      sums[2] += carried * scale;
      sums[3] += along * filter_value(in.filters, filter, 3 * width + f);
    }
  }
};

}  // namespace openmm_gnn::cuda
