// What a block of threads does with the features of its atoms: linear maps and layer norms, forth and back.
//
// In a map one thread = one column of four rows: per four inputs it reads four weights, side by side with its neighbours',
// and one 16-byte word of each row, for 16 multiplications with additions. In a layer norm kNormLanes threads sum over the
// channels of an atom.
#pragma once

#include "base/cuda/block.h"
#include "vector_gamd/network_weights.h"

namespace openmm_gnn::cuda {

constexpr int kAtomThreads = 256;
constexpr int kBlockAtoms = 16;
constexpr int kNormLanes = kAtomThreads / kBlockAtoms;  // threads that sum over one atom's channels
constexpr int kMapRows = 4;

struct AtomShared {
  float parts[4][kAtomThreads];
};

// Of a block.
struct BlockAtoms {
  int64_t begin;
  int count;

  OPENMM_GNN_HOST_DEVICE BlockAtoms(int64_t block, int64_t atoms) : begin(block * kBlockAtoms) {
    const int64_t left = atoms - begin;
    count = static_cast<int>(left < kBlockAtoms ? left : kBlockAtoms);
  }

  OPENMM_GNN_HOST_DEVICE bool has(int thread) const { return thread / kNormLanes < count; }
  OPENMM_GNN_HOST_DEVICE int64_t atom(int thread) const { return begin + thread / kNormLanes; }
};

struct alignas(16) FourNumbers {
  float x[4];
};

// ---- maps -----------------------------------------------------------------------------------------------------------

// The thread's part of to = rows weight + bias, or to += rows weight: `count` rows of `depth` numbers from row `begin` on, the
// weight in panels of 16 columns.
template <bool kAdd>
OPENMM_GNN_HOST_DEVICE void map_rows(int thread, const float* rows, int64_t begin, int count, int64_t depth,
                                     const float* weight, const float* bias, int64_t columns, float* to) {
  const int64_t items = (count + kMapRows - 1) / kMapRows * columns;
  for (int64_t item = thread; item < items; item += kAtomThreads) {
    const int64_t group = item / columns, c = item - group * columns, first = begin + group * kMapRows;
    const int64_t left = begin + count - first, have = left < kMapRows ? left : kMapRows;
    const float* w = weight + c / 16 * 16 * depth + c % 16;
    float sums[kMapRows];
    for (float& sum : sums) sum = bias == nullptr ? 0.f : bias[c];
    for (int64_t k = 0; k < depth; k += 4) {
      const float of_inputs[4] = {w[16 * k], w[16 * (k + 1)], w[16 * (k + 2)], w[16 * (k + 3)]};
      OPENMM_GNN_UNROLL
      for (int r = 0; r < kMapRows; ++r) {
        const float* row = rows + (first + (r < have ? r : 0)) * depth + k;
        const FourNumbers in = *reinterpret_cast<const FourNumbers*>(row);
        for (int m = 0; m < 4; ++m) sums[r] += in.x[m] * of_inputs[m];
      }
    }
    OPENMM_GNN_UNROLL
    for (int r = 0; r < kMapRows; ++r) {
      if (r >= have) continue;
      float* out = to + (first + r) * columns + c;
      *out = kAdd ? *out + sums[r] : sums[r];
    }
  }
}

// Atoms of a block through maps of `width` inputs; `per_atom` rows each.
struct BlockMaps {
  int thread;
  BlockAtoms of;
  int64_t width;

  OPENMM_GNN_HOST_DEVICE void forth(const LinearWeights& map, const float* rows, int per_atom, int64_t columns,
                                    float* to) const {
    map_rows<false>(thread, rows, per_atom * of.begin, per_atom * of.count, width, map.forth, map.bias, columns, to);
  }
  OPENMM_GNN_HOST_DEVICE void add_forth(const LinearWeights& map, const float* rows, float* to) const {
    map_rows<true>(thread, rows, of.begin, of.count, width, map.forth, nullptr, width, to);
  }
  // Gradients of `width` inputs from those of `outputs` results.
  template <bool kAdd>
  OPENMM_GNN_HOST_DEVICE void back(const LinearWeights& map, const float* rows, int per_atom, int64_t outputs,
                                   float* to) const {
    map_rows<kAdd>(thread, rows, per_atom * of.begin, per_atom * of.count, outputs, map.back, nullptr, width, to);
  }
};

// ---- layer norms ----------------------------------------------------------------------------------------------------

OPENMM_GNN_HOST_DEVICE float sum_of_lanes(const float (&parts)[kAtomThreads], int thread) {
  float sum = 0.f;
  for (int lane = 0; lane < kNormLanes; ++lane) sum += parts[thread / kNormLanes * kNormLanes + lane];
  return sum;
}

// A phase in which each atom's threads sum over its channels: parts[row] of a thread is the sum of value(thread, channel).
template <class Block, class Value>
OPENMM_GNN_HOST_DEVICE void sum_parts(Block& block, AtomShared& shared, int row, const BlockAtoms& of, int64_t width,
                                      const Value& value) {
  block.phase([&](int thread) {
    if (!of.has(thread)) return;
    float sum = 0.f;
    for (int64_t c = thread % kNormLanes; c < width; c += kNormLanes) sum += value(thread, c);
    shared.parts[row][thread] = sum;
  });
}

// Mean and spread of an atom's channels, of parts[0] and parts[1].
struct AtomMoments {
  float mean, scale;

  OPENMM_GNN_HOST_DEVICE AtomMoments(const AtomShared& shared, int thread, int64_t width)
      : mean(sum_of_lanes(shared.parts[0], thread) / static_cast<float>(width)),
        scale(1.f / std::sqrt(sum_of_lanes(shared.parts[1], thread) / static_cast<float>(width) + 1e-5f)) {}
};

template <class Block>
OPENMM_GNN_HOST_DEVICE void find_moments(Block& block, AtomShared& shared, const BlockAtoms& of, const float* rows,
                                         int64_t width) {
  sum_parts(block, shared, 0, of, width, [&](int thread, int64_t c) { return rows[of.atom(thread) * width + c]; });
  sum_parts(block, shared, 1, of, width, [&](int thread, int64_t c) {
    const float mean = sum_of_lanes(shared.parts[0], thread) / static_cast<float>(width);
    const float away = rows[of.atom(thread) * width + c] - mean;
    return away * away;
  });
}

template <class Block>
OPENMM_GNN_HOST_DEVICE void normalize_atoms(Block& block, AtomShared& shared, const BlockAtoms& of, const float* rows,
                                            int64_t width, const float* norm, float* to) {
  find_moments(block, shared, of, rows, width);
  block.phase([&](int thread) {
    if (!of.has(thread)) return;
    const AtomMoments m(shared, thread, width);
    for (int64_t c = thread % kNormLanes; c < width; c += kNormLanes) {
      const int64_t at = of.atom(thread) * width + c;
      to[at] = (rows[at] - m.mean) * m.scale * norm[c] + norm[width + c];
    }
  });
}

// Adds to the gradient of the rows.
template <class Block>
OPENMM_GNN_HOST_DEVICE void normalize_back(Block& block, AtomShared& shared, const BlockAtoms& of, const float* rows,
                                           int64_t width, const float* norm, const float* gradient, float* to) {
  find_moments(block, shared, of, rows, width);
  sum_parts(block, shared, 2, of, width,
            [&](int thread, int64_t c) { return gradient[of.atom(thread) * width + c] * norm[c]; });
  sum_parts(block, shared, 3, of, width, [&](int thread, int64_t c) {
    const int64_t at = of.atom(thread) * width + c;
    const AtomMoments m(shared, thread, width);
    return gradient[at] * norm[c] * (rows[at] - m.mean) * m.scale;
  });
  block.phase([&](int thread) {
    if (!of.has(thread)) return;
    const AtomMoments m(shared, thread, width);
    const float mean = sum_of_lanes(shared.parts[2], thread) / static_cast<float>(width);
    const float slope = sum_of_lanes(shared.parts[3], thread) / static_cast<float>(width);
    for (int64_t c = thread % kNormLanes; c < width; c += kNormLanes) {
      const int64_t at = of.atom(thread) * width + c;
      to[at] += (gradient[at] * norm[c] - mean - (rows[at] - m.mean) * m.scale * slope) * m.scale;
    }
  });
}

}  // namespace openmm_gnn::cuda
