// GAMD's networks over edges on the GPU, 64 edges at a time; the formulas are those of openmm_gnn/networks/gamd.py.
//
//   gamd_edges      features of every pair within the cutoff, from its distance, direction and bonds
//   gamd_messages   sums over an atom's messages: gather, edge network, gate, multiply, sum
//   gamd_strengths  the pair decoder's number for each pair
//
// What happens between reading the features of an edge and adding up its message stays in shared memory and registers.
// In plain PyTorch a layer writes and reads some 25 numbers per edge and channel; here it reads one.
#pragma once

#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// Features (P, width) of the edges i -> j and j -> i; the latter are empty without a direction.
inline constexpr char kGamdEdges[] =
    "gamd_edges(Tensor pairs, Tensor distances, Tensor vectors, Tensor types, Tensor centers, Tensor radial,"
    " Tensor radial_bias, Tensor bonded, Tensor direction, Tensor out, Tensor out_bias, float cutoff, float scale)"
    " -> (Tensor forward, Tensor backward)";

// Sums (N, width) of messages along the rows of vector_gamd/pair_rows.h.
inline constexpr char kGamdMessages[] =
    "gamd_messages(Tensor starts, Tensor entries, Tensor pairs, Tensor forward, Tensor backward, Tensor envelope,"
    " Tensor source, Tensor target, Tensor hidden, Tensor edge, Tensor edge_bias, Tensor gate, Tensor gate_bias)"
    " -> Tensor";

// Strengths (P,).
inline constexpr char kGamdStrengths[] =
    "gamd_strengths(Tensor pairs, Tensor distances, Tensor edges, Tensor envelope, Tensor total, Tensor left,"
    " Tensor edge, Tensor edge_bias, Tensor hidden, Tensor hidden_bias, Tensor readout, Tensor readout_bias,"
    " float cutoff) -> Tensor";

// y = x weight^T + bias, as torch.nn.Linear holds them: (outputs, inputs) and (outputs,).
struct LinearMap {
  const float* weight;
  const float* bias;
  int inputs;
};

// P pairs, each once; a negative index is padding.
struct TilePairs {
  int64_t count;
  const int64_t* pairs;    // (2, P)
  const float* distances;  // (P,)
  float cutoff;
  int64_t num_atoms;

  OPENMM_GNN_HOST_DEVICE bool padding(int64_t k) const { return pairs[k] < 0 && pairs[count + k] < 0; }
  // Atoms that there are; others are taken for no pair, and NaN comes out.
  OPENMM_GNN_HOST_DEVICE bool known(int64_t k) const {
    const int64_t i = pairs[k], j = pairs[count + k];
    return i >= 0 && j >= 0 && i < num_atoms && j < num_atoms;
  }
};

struct GamdEdges {
  TilePairs pairs;
  const float* vectors;    // (P, 3) from i to j
  const int64_t* types;    // (P,) rows of `bonded`, or null
  const float* centers;    // (num_radial,) of Gaussians exp(scale (r - center)^2)
  float scale;
  LinearMap radial;        // num_radial -> width
  const float* bonded;     // (bonded_rows, width), or null
  int64_t bonded_rows;
  const float* direction;  // (width, 3) weight of the unit vector, or null: then both directions are alike
  LinearMap out;           // width -> width
  float *forward, *backward;  // (P, width) of the edges i -> j and j -> i; backward is null without a direction
};

struct GamdMessages {
  int64_t num_atoms;
  const int32_t *starts, *entries;  // of pair_rows.h
  TilePairs pairs;
  const float *forward, *backward;  // (P, width)
  const float* envelope;            // (P,)
  const float *source, *target, *hidden;  // (N, width)
  LinearMap edge, gate;             // width -> width
  float* sums;                      // (N, width)
};

struct GamdStrengths {
  TilePairs pairs;
  const float* edges;            // (P, width)
  const float* envelope;         // (P,)
  const float *total, *left;     // (N, width)
  LinearMap edge, hidden;        // width -> width
  const float *readout, *readout_bias;  // (width,) and (1,)
  float* strengths;              // (P,) times the envelope; 0 beyond the cutoff, NaN for a distance of NaN or unknown atoms
};

}  // namespace openmm_gnn
