// What atoms do between the loops over pairs of a network with vector features, forth and back, for weights that are not
// trained: the functions of ../cpu/atom_layers.inl, whose order of steps this keeps.
//
// One block = kBlockAtoms atoms, which go through all maps of a round in one launch; what a step leaves to the next lies in
// device memory, mostly in the cache.
#pragma once

#include "vector_gamd/cuda/atom_maps.h"

namespace openmm_gnn::cuda {

// ---- steps of a round -----------------------------------------------------------------------------------------------

// Calls body(atom, channel, atom * width + channel), each once.
template <class Block, class Body>
OPENMM_GNN_HOST_DEVICE void each_channel(Block& block, const BlockAtoms& of, int64_t width, const Body& body) {
  block.phase([&](int thread) {
    for (int64_t item = thread; item < of.count * width; item += kAtomThreads) {
      body(of.begin + item / width, item % width, of.begin * width + item);
    }
  });
}

template <class Block>
OPENMM_GNN_HOST_DEVICE void prepare_atoms(Block& block, AtomShared& shared, const BlockAtoms& of,
                                          const LayerWeights& weights, const LayerState& state) {
  const int64_t width = state.width;
  float* hidden = state.length;  // which is written later
  normalize_atoms(block, shared, of, state.scalars, width, weights.norm, hidden);
  block.phase([&](int thread) {
    const BlockMaps maps{thread, of, width};
    maps.forth(weights.source, hidden, 1, 3 * width, state.source);
    maps.forth(weights.target, hidden, 1, 3 * width, state.target);
    maps.forth(weights.value, hidden, 1, width, state.value);
    maps.forth(weights.self, hidden, 1, width, state.update);
    if (state.vectors == nullptr) return;
    maps.forth(weights.probe, state.vectors, 3, width, state.probe);
    maps.forth(weights.carried, state.vectors, 3, width, state.carried);
  });
}

template <class Block>
OPENMM_GNN_HOST_DEVICE void update_atoms(Block& block, const BlockAtoms& of, const LayerWeights& weights,
                                         const LayerState& state, float* scalars, float* vectors) {
  const int64_t width = state.width;
  block.phase([&](int thread) {
    const BlockMaps maps{thread, of, width};
    maps.forth(weights.length, state.vector_sums, 3, width, state.lengths);
    maps.forth(weights.out, state.vector_sums, 3, width, state.outs);
  });
  each_channel(block, of, width, [&](int64_t a, int64_t c, int64_t at) {
    const float *x = state.lengths + 3 * a * width + c, *y = x + width, *z = y + width;
    state.length[at] = std::sqrt(*x * *x + *y * *y + *z * *z + 1e-2f);
  });
  block.phase([&](int thread) {  // a thread adds twice to what it alone adds to
    const BlockMaps maps{thread, of, width};
    maps.add_forth(weights.sum, state.sums, state.update);
    maps.add_forth(weights.reach, state.length, state.update);
  });
  each_channel(block, of, width,
               [&](int64_t, int64_t, int64_t at) { scalars[at] = silu_channel(state.update[at]).value; });
  block.phase([&](int thread) {
    BlockMaps{thread, of, width}.forth(weights.change, scalars, 1, 2 * width, state.change);
  });
  each_channel(block, of, width, [&](int64_t a, int64_t c, int64_t at) {
    scalars[at] = state.scalars[at] + state.change[2 * a * width + c];
    const float gate = state.change[(2 * a + 1) * width + c] + 1.f;
    for (int64_t d = 3 * a; d < 3 * a + 3; ++d) {
      const float change = state.outs[d * width + c] * gate;
      vectors[d * width + c] = state.vectors == nullptr ? change : state.vectors[d * width + c] + change;
    }
  });
}

template <class Block>
OPENMM_GNN_HOST_DEVICE void update_back(Block& block, const BlockAtoms& of, const LayerWeights& weights,
                                        const LayerState& state, const LayerGradients& out) {
  const int64_t width = state.width;
  each_channel(block, of, width, [&](int64_t a, int64_t c, int64_t at) {
    const float gate = state.change[(2 * a + 1) * width + c] + 1.f;
    float of_gate = 0.f;
    for (int64_t d = 3 * a; d < 3 * a + 3; ++d) {
      const float gradient = out.vectors[d * width + c];
      of_gate += gradient * state.outs[d * width + c];
      out.outs[d * width + c] = gradient * gate;
    }
    out.change[2 * a * width + c] = out.scalars[at];
    out.change[(2 * a + 1) * width + c] = of_gate;
  });
  block.phase([&](int thread) {
    BlockMaps{thread, of, width}.back<false>(weights.change, out.change, 1, 2 * width, out.update);
  });
  each_channel(block, of, width,
               [&](int64_t, int64_t, int64_t at) { out.update[at] *= silu_channel(state.update[at]).slope; });
  block.phase([&](int thread) {
    const BlockMaps maps{thread, of, width};
    maps.back<false>(weights.sum, out.update, 1, width, out.sums);
    maps.back<false>(weights.reach, out.update, 1, width, out.length);
  });
  each_channel(block, of, width, [&](int64_t a, int64_t c, int64_t at) {
    for (int64_t d = 3 * a; d < 3 * a + 3; ++d) {
      out.lengths[d * width + c] = out.length[at] * state.lengths[d * width + c] / state.length[at];
    }
  });
  block.phase([&](int thread) {
    const BlockMaps maps{thread, of, width};
    maps.back<false>(weights.length, out.lengths, 3, width, out.vector_sums);
    maps.back<true>(weights.out, out.outs, 3, width, out.vector_sums);
  });
}

template <class Block>
OPENMM_GNN_HOST_DEVICE void prepare_back(Block& block, AtomShared& shared, const BlockAtoms& of,
                                         const LayerWeights& weights, const LayerState& state,
                                         const LayerGradients& out) {
  const int64_t width = state.width;
  block.phase([&](int thread) {
    const BlockMaps maps{thread, of, width};
    maps.back<false>(weights.source, out.source, 1, 3 * width, out.hidden);
    maps.back<true>(weights.target, out.target, 1, 3 * width, out.hidden);
    maps.back<true>(weights.value, out.value, 1, width, out.hidden);
    maps.back<true>(weights.self, out.update, 1, width, out.hidden);
    maps.back<true>(weights.probe, out.probe, 3, width, out.vectors);
    maps.back<true>(weights.carried, out.carried, 3, width, out.vectors);
  });
  normalize_back(block, shared, of, state.scalars, width, weights.norm, out.hidden, out.scalars);
}

// ---- kernels --------------------------------------------------------------------------------------------------------

// One thread = one channel of one atom's species; NaN for a species that there is none of.
struct EmbedAtoms {
  const float* embedding;
  const int64_t* species;
  int64_t num_species, width;
  float* scalars;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    const int64_t a = item / width, kind = species[a];
    scalars[item] = kind >= 0 && kind < num_species ? embedding[kind * width + item - a * width] : NAN;
  }
};

struct AtomKernel {
  static constexpr int kThreads = kAtomThreads;
  using Shared = AtomShared;
};

inline int64_t atom_blocks(int64_t atoms) { return blocks_for(atoms, kBlockAtoms); }

struct PrepareAtoms : AtomKernel {
  LayerWeights weights;
  LayerState state;
  int64_t atoms;

  PrepareAtoms(const LayerWeights& w, const LayerState& s, int64_t n) : weights(w), state(s), atoms(n) {}

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    prepare_atoms(block, shared, BlockAtoms(block.index(), atoms), weights, state);
  }
};

// A layer with the one after it.
struct TwoLayers {
  LayerWeights before, weights;
  LayerState last, state;
};

// The end of a layer and the beginning of the next.
struct RoundOfAtoms : AtomKernel {
  TwoLayers layers;
  int64_t atoms;

  RoundOfAtoms(const TwoLayers& both, int64_t n) : layers(both), atoms(n) {}

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const BlockAtoms of(block.index(), atoms);
    update_atoms(block, of, layers.before, layers.last, layers.state.scalars, layers.state.vectors);
    prepare_atoms(block, shared, of, layers.weights, layers.state);
  }
};

struct RoundOfAtomsBack : AtomKernel {
  TwoLayers layers;
  LayerGradients out;
  int64_t atoms;

  RoundOfAtomsBack(const TwoLayers& both, const LayerGradients& to, int64_t n) : layers(both), out(to), atoms(n) {}

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const BlockAtoms of(block.index(), atoms);
    prepare_back(block, shared, of, layers.weights, layers.state, out);
    update_back(block, of, layers.before, layers.last, out);
  }
};

// The last layer with the decoder after it.
struct LastLayer {
  LayerWeights before;
  LayerState last;
  DecoderWeights weights;
  DecoderState state;
};

struct DecodeAtoms : AtomKernel {
  LastLayer layer;
  int64_t atoms;

  DecodeAtoms(const LastLayer& last, int64_t n) : layer(last), atoms(n) {}

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const BlockAtoms of(block.index(), atoms);
    const DecoderState& state = layer.state;
    const int64_t width = state.width;
    update_atoms(block, of, layer.before, layer.last, state.scalars, state.vectors);
    normalize_atoms(block, shared, of, state.scalars, width, layer.weights.norm, state.hidden);
    block.each_thread([&](int thread) {
      const BlockMaps maps{thread, of, width};
      maps.forth(layer.weights.total, state.hidden, 1, width, state.total);
      maps.forth(layer.weights.left, state.hidden, 1, width, state.left);
      maps.forth(layer.weights.probe, state.vectors, 3, width, state.probe);
    });
  }
};

// Of total, left and probe, which lie in source, target and probe.
struct DecodeAtomsBack : AtomKernel {
  LastLayer layer;
  LayerGradients out;
  int64_t atoms;

  DecodeAtomsBack(const LastLayer& last, const LayerGradients& to, int64_t n) : layer(last), out(to), atoms(n) {}

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const BlockAtoms of(block.index(), atoms);
    const int64_t width = layer.state.width;
    block.phase([&](int thread) {
      const BlockMaps maps{thread, of, width};
      maps.back<false>(layer.weights.total, out.source, 1, width, out.hidden);
      maps.back<true>(layer.weights.left, out.target, 1, width, out.hidden);
      maps.back<false>(layer.weights.probe, out.probe, 3, width, out.vectors);
    });
    each_channel(block, of, width, [&](int64_t, int64_t, int64_t at) { out.scalars[at] = 0.f; });
    normalize_back(block, shared, of, layer.state.scalars, width, layer.weights.norm, out.hidden, out.scalars);
    update_back(block, of, layer.before, layer.last, out);
  }
};

}  // namespace openmm_gnn::cuda
