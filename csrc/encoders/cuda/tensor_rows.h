// TensorNet over rows of edges (edge_block.h), and its products of tensors, one thread = one channel of one atom.
//
// Cost per edge and channel: 12 floats of a table and 9 of the sender, mostly from the second-level cache, and about 40
// operations; per atom and channel 9 to 18 floats read and 9 written, instead of 9 for each of some ten steps of PyTorch.
#pragma once

#include "encoders/cuda/edge_block.h"

namespace openmm_gnn::cuda {

using Lanes = float;  // of the formulas that follow
#define INLINE OPENMM_GNN_HOST_DEVICE
INLINE float load(const float* p) { return *p; }
#include "encoders/cartesian_tensors.inl"
#undef INLINE

// kFirst: the tensors of directions, else those of the senders.
template <bool kFirst>
struct TensorRowsKernel {
  static constexpr int kThreads = kEdgeThreads;
  struct Shared {
    EdgeTile tile;
    StrandSums<9> strands;
  };
  EdgeRows rows;
  EncoderEdges geometry;
  TensorInputs in;
  float* parts;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t a = block.index(), width = in.width;
    const EdgeLanes lanes(width);
    typename Block::template PerThread<ChannelSums<9>> sums(block);
    block.each_thread([&](int thread) { sums[thread] = {}; });
    each_tile(
        block, rows, kTileEdges,
        [&](int32_t place, int slot) { load_edge(rows, geometry, &in.filters, place, slot, shared.tile); },
        [&](int count, int thread) {
          if (lanes.idle(thread)) return;
          for (int k = lanes.strand(thread); k < count; k += lanes.strands) {
            take_in(shared.tile, k, a, lanes.channel(thread), sums[thread].value);
          }
        });
    add_strands(block, lanes, sums, shared.strands,
                [&](int m, int f, float total) { parts[(9 * a + m) * width + f] = total; });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void take_in(const EdgeTile& tile, int k, int64_t a, int64_t f, float (&sums)[9]) const {
    const int64_t width = in.width, b = tile.sender[k];
    float filters[3];
    for (int part = 0; part < 3; ++part) filters[part] = filter_value(in.filters, tile.filter[k], part * width + f);
    if constexpr (kFirst) {
      const float pair = in.receiver[a * width + f] + in.sender[b * width + f];
      float shape[9];
      direction_tensor(tile.u[k], shape);
      for (int m = 0; m < 9; ++m) sums[m] += filters[part_of(m)] * pair * shape[m];
    } else {
      for (int m = 0; m < 9; ++m) sums[m] += filters[part_of(m)] * in.parts[(9 * b + m) * width + f];
    }
  }
};

// Tensors of atoms by channel, (N, 9, width), from one or two others.
template <TensorFormula kFormula>
struct TensorAtoms {
  int64_t width;
  const float *first, *second;
  float* parts;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t a = item / width, place = 9 * a * width + item - a * width;
    float p[9];
    tensor_formula<kFormula>(first + place, second + place, width, p);
    for (int m = 0; m < 9; ++m) parts[place + m * width] = p[m];
  }
};

}  // namespace openmm_gnn::cuda
