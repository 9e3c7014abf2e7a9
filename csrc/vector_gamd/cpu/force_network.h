// The network of atom_layers.h from its pairs to an energy or strengths, and back to the gradients by the pairs' vectors.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cpu/buffer.h"
#include "vector_gamd/cpu/atom_layers.h"

namespace openmm_gnn {

// Arrays of floats whose memory serves again in the next call.
class Arrays {
 public:
  void start() { next_ = 0; }
  float* take(int64_t count) {
    if (next_ == buffers_.size()) buffers_.push_back(std::make_unique<Buffer<float>>());
    return buffers_[next_++]->reserve(count);
  }

 private:
  std::vector<std::unique_ptr<Buffer<float>>> buffers_;
  size_t next_ = 0;
};

struct ForceNetwork {
  const ForceNetworkWeights& weights;
  NetworkSizes sizes;
  int64_t atoms;
  const int64_t* species;  // (atoms,), below sizes.species
  PreparedEdges edges;     // of atoms and table rows that are there
  int64_t num_threads;
};

// The energy, `scale` times the sum of all strengths, and its gradients by the pairs' vectors (P, 3).
double network_energy(const ForceNetwork& net, float scale, Arrays& arrays, float* pair_vectors);

// The strengths (P,).
void network_strengths(const ForceNetwork& net, Arrays& arrays, float* strengths);

}  // namespace openmm_gnn
