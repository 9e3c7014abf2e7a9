// What GAMD makes of each pair by itself: its features (gamd_edges) and the pair decoder's number (gamd_strengths).
//
// One block = 64 slots of the list, in the products as tile_product.h has them; a block whose slots are all padding or
// beyond the cutoff costs their indices and distances. A list with skin holds such slots in between, and they are
// computed along with the others: at a skin of 0.1 nm over 0.42 nm, half of them.
#pragma once

#include "gamd/cuda/tile_product.h"

namespace openmm_gnn::cuda {

// Fills `shared.pair` and returns, to every thread alike, whether any slot of the tile is within the cutoff.
template <class Block, class Shared>
OPENMM_GNN_HOST_DEVICE bool load_slots(Block& block, Shared& shared, const TilePairs& pairs) {
  const int64_t first = block.index() * kTileRows;
  block.phase([&](int thread) {
    const int64_t pair = first + thread;
    if (thread >= kTileRows) return;
    const bool wanted = pair < pairs.count && pairs.known(pair) && pairs.distances[pair] < pairs.cutoff;
    shared.pair[thread] = wanted ? pair : -1;
    shared.receiver[thread] = wanted ? static_cast<int32_t>(pairs.pairs[pair]) : 0;
    shared.sender[thread] = wanted ? static_cast<int32_t>(pairs.pairs[pairs.count + pair]) : 0;
  });
  bool any = false;
  for (int row = 0; row < kTileRows; ++row) any = any || shared.pair[row] >= 0;
  return any;
}

template <int kWidth>
struct TileEdges {
  static constexpr int kThreads = kTileThreads;
  using Product = TileProduct<kWidth>;
  using Shared = typename Product::Shared;
  GamdEdges in;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    if (!load_slots(block, shared, in.pairs)) return;
    for (int way = 0; way < (in.backward != nullptr ? 2 : 1); ++way) {
      block.phase([&](int thread) { load_basis(shared, thread); });
      Product::run(block, shared, in.radial);
      block.phase([&](int thread) { activate(shared, thread, way == 0 ? 1.f : -1.f); });
      Product::run(block, shared, in.out);
      block.phase([&](int thread) { write(shared, thread, way == 0 ? in.forward : in.backward); });
    }
  }

 private:
  OPENMM_GNN_HOST_DEVICE void load_basis(Shared& shared, int thread) const {
    const int columns = (in.radial.inputs + kTileChunk - 1) / kTileChunk * kTileChunk;
    for (int item = thread; item < kTileRows * columns; item += kThreads) {
      const int row = item / columns, k = item - row * columns;
      float value = 0.f;
      if (shared.pair[row] >= 0 && k < in.radial.inputs) {
        const float away = in.pairs.distances[shared.pair[row]] - in.centers[k];
        const float exponent = in.scale * away * away;
        value = exp_of(exponent > -40.f ? exponent : -40.f);
      }
      shared.x[row][k] = value;
    }
  }

  OPENMM_GNN_HOST_DEVICE static float exp_of(float x) {
#if defined(__CUDA_ARCH__)
    return __expf(x);
#else
    return std::exp(x);
#endif
  }

  OPENMM_GNN_HOST_DEVICE void activate(Shared& shared, int thread, float sign) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      const int64_t pair = shared.pair[row];
      if (pair < 0) return;
      float z = shared.x[row][channel] + in.radial.bias[channel];
      if (in.bonded != nullptr) {
        const int64_t type = in.types[pair];
        z += type >= 0 && type < in.bonded_rows ? in.bonded[type * kWidth + channel] : NAN;
      }
      if (in.direction != nullptr) {
        const float distance = in.pairs.distances[pair], scale = sign / (distance > 1e-12f ? distance : 1e-12f);
        for (int d = 0; d < 3; ++d) z += in.direction[3 * channel + d] * in.vectors[3 * pair + d] * scale;
      }
      shared.x[row][channel] = silu_channel(z).value;
    });
  }

  OPENMM_GNN_HOST_DEVICE void write(const Shared& shared, int thread, float* edges) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      const int64_t pair = shared.pair[row];
      if (pair >= 0) edges[pair * kWidth + channel] = shared.x[row][channel] + in.out.bias[channel];
    });
  }
};

template <int kWidth>
struct TileStrengths {
  static constexpr int kThreads = kTileThreads, kParts = kTileThreads / kTileRows;
  using Product = TileProduct<kWidth>;
  struct Shared : Product::Shared {
    float part[kTileRows][kParts];
  };
  GamdStrengths in;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t first = block.index() * kTileRows;
    if (load_slots(block, shared, in.pairs)) {
      block.phase([&](int thread) { load_features(shared, thread); });
      Product::run(block, shared, in.edge);
      block.phase([&](int thread) { activate(shared, thread); });
      Product::run(block, shared, in.hidden);
      block.phase([&](int thread) {
        const int row = thread / kParts, part = thread - row * kParts;
        float sum = 0.f;
        for (int channel = part; channel < kWidth; channel += kParts) {
          sum += silu_channel(shared.x[row][channel] + in.hidden.bias[channel]).value * in.readout[channel];
        }
        shared.part[row][part] = sum;
      });
    }
    block.each_thread([&](int thread) {
      const int64_t pair = first + thread;
      if (thread >= kTileRows || pair >= in.pairs.count) return;
      const float distance = in.pairs.distances[pair];
      float strength = distance == distance && (in.pairs.padding(pair) || in.pairs.known(pair)) ? 0.f : NAN;
      if (shared.pair[thread] >= 0) {
        float sum = in.readout_bias[0];
        for (int part = 0; part < kParts; ++part) sum += shared.part[thread][part];
        strength = sum * in.envelope[pair];
      }
      in.strengths[pair] = strength;
    });
  }

 private:
  OPENMM_GNN_HOST_DEVICE void load_features(Shared& shared, int thread) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      const int64_t pair = shared.pair[row];
      shared.x[row][channel] = pair < 0 ? 0.f : in.edges[pair * kWidth + channel];
    });
  }

  OPENMM_GNN_HOST_DEVICE void activate(Shared& shared, int thread) const {
    each_channel<kWidth>(thread, [&](int row, int channel) {
      const int64_t i = static_cast<int64_t>(shared.receiver[row]) * kWidth + channel;
      const int64_t j = static_cast<int64_t>(shared.sender[row]) * kWidth + channel;
      const float z = shared.x[row][channel] + in.edge.bias[channel] + in.total[i] + in.total[j] +
                      in.left[i] * in.left[j];
      shared.x[row][channel] = silu_channel(z).value;
    });
  }
};

}  // namespace openmm_gnn::cuda
