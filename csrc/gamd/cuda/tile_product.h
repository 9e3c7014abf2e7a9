// The product of 64 rows in shared memory with a weight matrix, by one block of 256 threads, in float32.
//
// Each thread keeps kWidth / 16 rows by 4 columns of the result in registers. The weights come through shared memory, 16
// inputs at a time: 64 KB at width 128, read by every block, from the cache. Cost per row: 2 kWidth^2 operations and, at
// width 128, kWidth^2 / 64 loads of 4 bytes.
#pragma once

#include "encoders/radial_edge.h"
#include "gamd/gamd_tiles.h"
#include "base/cuda/block.h"

namespace openmm_gnn::cuda {

constexpr int kTileRows = 64;
constexpr int kTileThreads = 256;
constexpr int kTileChunk = 16;      // inputs of the weights in shared memory at a time
constexpr int kFewestColumns = 64;  // of the rows in shared memory, so that narrow networks may have a wide basis

template <int kWidth>
struct ProductShared {
  static constexpr int kColumns = kWidth > kFewestColumns ? kWidth : kFewestColumns;
  static constexpr int kStride = kColumns + 4;  // rows start in different banks
  alignas(32) float x[kTileRows][kStride];
  alignas(32) float weight[kTileChunk][kWidth + 4];
  int64_t pair[kTileRows];  // -1: no row
  int32_t receiver[kTileRows], sender[kTileRows];
  float envelope[kTileRows];
};

// Calls body(row, channel) for this thread's share of the channels of a tile's rows.
template <int kWidth, class Body>
OPENMM_GNN_HOST_DEVICE void each_channel(int thread, const Body& body) {
  for (int item = thread; item < kTileRows * kWidth; item += kTileThreads) body(item / kWidth, item % kWidth);
}

template <int kWidth>
struct TileProduct {
  static constexpr int kColumnGroups = kWidth / 4, kRowGroups = kTileThreads / kColumnGroups;
  static constexpr int kRowsOfThread = kTileRows / kRowGroups;
  using Shared = ProductShared<kWidth>;

  struct Sums {
    float sum[kRowsOfThread][4];
  };

  // x <- x weight^T for all rows; without the bias. `x` is complete and nobody reads it until the next phase.
  template <class Block>
  OPENMM_GNN_HOST_DEVICE static void run(Block& block, Shared& shared, const LinearMap& map) {
    typename Block::template PerThread<Sums> sums(block);
    block.each_thread([&](int thread) { clear(sums[thread]); });
    for (int first = 0; first < map.inputs; first += kTileChunk) {
      block.phase([&](int thread) { load_chunk(shared, map, first, thread); });
      block.phase([&](int thread) { add_products(shared, first, thread, sums[thread]); });
    }
    block.phase([&](int thread) { store(shared, thread, sums[thread]); });
  }

 private:
  OPENMM_GNN_HOST_DEVICE static float weight_at(const LinearMap& map, int column, int input) {
    return input < map.inputs ? map.weight[static_cast<int64_t>(column) * map.inputs + input] : 0.f;
  }

  OPENMM_GNN_HOST_DEVICE static void load_chunk(Shared& shared, const LinearMap& map, int first, int thread) {
    for (int item = thread; item < kTileChunk * kWidth; item += kTileThreads) {
      const int column = item / kTileChunk, k = item - column * kTileChunk;
      shared.weight[k][column] = weight_at(map, column, first + k);
    }
  }

  OPENMM_GNN_HOST_DEVICE static void clear(Sums& sums) {
    for (auto& row : sums.sum) {
      for (float& value : row) value = 0.f;
    }
  }

  OPENMM_GNN_HOST_DEVICE static void add_products(const Shared& shared, int first, int thread, Sums& sums) {
    const int row = thread / kColumnGroups, column = 4 * (thread - row * kColumnGroups);
    OPENMM_GNN_UNROLL_FOUR
    for (int k = 0; k < kTileChunk; ++k) {
      float factor[4];
      OPENMM_GNN_UNROLL
      for (int c = 0; c < 4; ++c) factor[c] = shared.weight[k][column + c];
      OPENMM_GNN_UNROLL
      for (int m = 0; m < kRowsOfThread; ++m) {
        const float value = shared.x[row + m * kRowGroups][first + k];
        OPENMM_GNN_UNROLL
        for (int c = 0; c < 4; ++c) sums.sum[m][c] += value * factor[c];
      }
    }
  }

  OPENMM_GNN_HOST_DEVICE static void store(Shared& shared, int thread, const Sums& sums) {
    const int row = thread / kColumnGroups, column = 4 * (thread - row * kColumnGroups);
    OPENMM_GNN_UNROLL
    for (int m = 0; m < kRowsOfThread; ++m) {
      OPENMM_GNN_UNROLL
      for (int c = 0; c < 4; ++c) shared.x[row + m * kRowGroups][column + c] = sums.sum[m][c];
    }
  }
};

}  // namespace openmm_gnn::cuda
