// The product of 64 rows in shared memory with a weight matrix, by one block of 256 threads.
//
// Plain: each thread keeps kWidth / 16 rows by 4 columns of the result in registers. With tensor cores (compute
// capability 8.0 and newer): each of the 8 warps keeps up to four 16 x 16 tiles; operands are rounded to TF32, 10 bits of
// mantissa, or bfloat16, 7 bits, and sums are float32. The weights come through shared memory, 16 inputs at a time: 64 KB
// at width 128, read by every block, from the cache. Cost per row: 2 kWidth^2 operations and, at width 128, kWidth^2 / 64
// loads of 4 bytes, or half of that and one more pass over the rows for bfloat16. The emulator rounds as tensor cores do
// and sums as the plain form does.
#pragma once

#include "encoders/radial_edge.h"
#include "gamd/gamd_tiles.h"
#include "base/cuda/block.h"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define OPENMM_GNN_TENSOR_CORES 1
#include <cuda_bf16.h>
#include <mma.h>
#else
#define OPENMM_GNN_TENSOR_CORES 0
#endif

namespace openmm_gnn::cuda {

constexpr int kTileRows = 64;
constexpr int kTileThreads = 256;
constexpr int kTileChunk = 16;      // inputs of the weights in shared memory at a time
constexpr int kFewestColumns = 64;  // of the rows in shared memory, so that narrow networks may have a wide basis

// The weights of 16 inputs, and where they are bfloat16 the rows' inputs too.
template <int kWidth, Products kProducts>
struct ProductChunk {
  static constexpr int kStride = kWidth + 4;
  alignas(32) float weight[kTileChunk][kStride];
};

#if OPENMM_GNN_TENSOR_CORES
template <int kWidth>
struct ProductChunk<kWidth, Products::kBfloat16> {
  static constexpr int kStride = kWidth + 8, kRowStride = kTileChunk + 8;
  alignas(32) __nv_bfloat16 weight[kTileChunk][kStride];
  alignas(32) __nv_bfloat16 x[kTileRows][kRowStride];
};
#endif

template <int kWidth, Products kProducts>
struct ProductShared {
  static constexpr int kColumns = kWidth > kFewestColumns ? kWidth : kFewestColumns;
  static constexpr int kStride = kColumns + 4;  // rows start in different banks
  alignas(32) float x[kTileRows][kStride];
  ProductChunk<kWidth, kProducts> chunk;
  int64_t pair[kTileRows];  // -1: no row
  int32_t receiver[kTileRows], sender[kTileRows];
  float envelope[kTileRows];
};

// Calls body(row, channel) for this thread's share of the channels of a tile's rows.
template <int kWidth, class Body>
OPENMM_GNN_HOST_DEVICE void each_channel(int thread, const Body& body) {
  for (int item = thread; item < kTileRows * kWidth; item += kTileThreads) body(item / kWidth, item % kWidth);
}

// As tensor cores take an operand: TF32 to the nearest number with 10 bits of mantissa, halves away from zero; bfloat16 to
// the nearest with 7, halves to even.
template <Products kProducts>
float rounded_operand(float value) {
  if (kProducts == Products::kFloat32) return value;
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if (kProducts == Products::kTF32) {
    bits = (bits + 0x1000u) & ~0x1fffu;
  } else {
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & ~0xffffu;
  }
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

template <int kWidth, Products kProducts>
struct TileProduct {
  static constexpr int kColumnGroups = kWidth / 4, kRowGroups = kTileThreads / kColumnGroups;
  static constexpr int kRowsOfThread = kTileRows / kRowGroups;
  using Shared = ProductShared<kWidth, kProducts>;

#if OPENMM_GNN_TENSOR_CORES
  static constexpr int kWarps = kTileThreads / 32, kTiles = (kTileRows / 16) * (kWidth / 16);
  static constexpr int kTilesOfWarp = (kTiles + kWarps - 1) / kWarps;
  static constexpr bool kTensor = kProducts != Products::kFloat32;
  static constexpr int kStep = kProducts == Products::kBfloat16 ? 16 : 8;  // inputs of one instruction
  using Part = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, kStep, float>;
  struct Tensor {
    Part part[kTilesOfWarp];
  };
#endif
  struct Plain {
    float sum[kRowsOfThread][4];
  };
#if OPENMM_GNN_TENSOR_CORES
  template <bool kUsed, class A, class B>
  struct Choose {
    using Type = A;
  };
  template <class A, class B>
  struct Choose<false, A, B> {
    using Type = B;
  };
  using Sums = typename Choose<kTensor, Tensor, Plain>::Type;
#else
  using Sums = Plain;
#endif

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
      shared.chunk.weight[k][column] = weight_at(map, column, first + k);
    }
#if OPENMM_GNN_TENSOR_CORES
    if constexpr (kProducts == Products::kBfloat16) {
      for (int item = thread; item < kTileRows * kTileChunk; item += kTileThreads) {
        const int row = item / kTileChunk, k = item - row * kTileChunk;
        shared.chunk.x[row][k] = shared.x[row][first + k];
      }
    }
#endif
  }

  OPENMM_GNN_HOST_DEVICE static void clear(Plain& sums) {
    for (auto& row : sums.sum) {
      for (float& value : row) value = 0.f;
    }
  }

  OPENMM_GNN_HOST_DEVICE static float operand(float value) {
#if defined(__CUDA_ARCH__)
    return value;
#else
    return rounded_operand<kProducts>(value);
#endif
  }

  OPENMM_GNN_HOST_DEVICE static void add_products(const Shared& shared, int first, int thread, Plain& sums) {
    const int row = thread / kColumnGroups, column = 4 * (thread - row * kColumnGroups);
    OPENMM_GNN_UNROLL_FOUR
    for (int k = 0; k < kTileChunk; ++k) {
      float factor[4];
      OPENMM_GNN_UNROLL
      for (int c = 0; c < 4; ++c) factor[c] = operand(shared.chunk.weight[k][column + c]);
      OPENMM_GNN_UNROLL
      for (int m = 0; m < kRowsOfThread; ++m) {
        const float value = operand(shared.x[row + m * kRowGroups][first + k]);
        OPENMM_GNN_UNROLL
        for (int c = 0; c < 4; ++c) sums.sum[m][c] += value * factor[c];
      }
    }
  }

  OPENMM_GNN_HOST_DEVICE static void store(Shared& shared, int thread, const Plain& sums) {
    const int row = thread / kColumnGroups, column = 4 * (thread - row * kColumnGroups);
    OPENMM_GNN_UNROLL
    for (int m = 0; m < kRowsOfThread; ++m) {
      OPENMM_GNN_UNROLL
      for (int c = 0; c < 4; ++c) shared.x[row + m * kRowGroups][column + c] = sums.sum[m][c];
    }
  }

#if OPENMM_GNN_TENSOR_CORES
  // Tile t of the result: rows 16 (t mod 4), columns 16 (t / 4); a warp's tiles share their columns where they can.
  static __device__ __forceinline__ void clear(Tensor& sums) {
    OPENMM_GNN_UNROLL
    for (int m = 0; m < kTilesOfWarp; ++m) nvcuda::wmma::fill_fragment(sums.part[m], 0.f);
  }

  static __device__ __forceinline__ void add_products(const Shared& shared, int first, int thread, Tensor& sums) {
    const int begin = (thread / 32) * kTilesOfWarp;
    for (int k = 0; k < kTileChunk; k += kStep) {
      OPENMM_GNN_UNROLL
      for (int m = 0; m < kTilesOfWarp; ++m) {
        const int tile = begin + m;
        if (tile < kTiles) add_tile(shared, first, k, 16 * (tile % 4), 16 * (tile / 4), sums.part[m]);
      }
    }
  }

  static __device__ __forceinline__ void add_tile(const Shared& shared, int first, int k, int row, int column,
                                                  Part& part) {
    namespace wmma = nvcuda::wmma;
    using Chunk = decltype(shared.chunk);
    if constexpr (kProducts == Products::kBfloat16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> rows;
      wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> weights;
      wmma::load_matrix_sync(rows, &shared.chunk.x[row][k], Chunk::kRowStride);
      wmma::load_matrix_sync(weights, &shared.chunk.weight[k][column], Chunk::kStride);
      wmma::mma_sync(part, rows, weights, part);
    } else {
      wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> rows;
      wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::row_major> weights;
      wmma::load_matrix_sync(rows, &shared.x[row][first + k], Shared::kStride);
      wmma::load_matrix_sync(weights, &shared.chunk.weight[k][column], Chunk::kStride);
      OPENMM_GNN_UNROLL
      for (int n = 0; n < rows.num_elements; ++n) rows.x[n] = wmma::__float_to_tf32(rows.x[n]);
      OPENMM_GNN_UNROLL
      for (int n = 0; n < weights.num_elements; ++n) weights.x[n] = wmma::__float_to_tf32(weights.x[n]);
      wmma::mma_sync(part, rows, weights, part);
    }
  }

  static __device__ __forceinline__ void store(Shared& shared, int thread, const Tensor& sums) {
    const int begin = (thread / 32) * kTilesOfWarp;
    OPENMM_GNN_UNROLL
    for (int m = 0; m < kTilesOfWarp; ++m) {
      const int tile = begin + m;
      if (tile >= kTiles) continue;
      nvcuda::wmma::store_matrix_sync(&shared.x[16 * (tile % 4)][16 * (tile / 4)], sums.part[m], Shared::kStride,
                                      nvcuda::wmma::mem_row_major);
    }
  }
#endif
};

}  // namespace openmm_gnn::cuda
