// From the atoms of a molecule in a box to the edges of its encoder, and back from gradients of the edges to forces.
//
// For a bias on few atoms: each of the 60 operations of PyTorch that features/whole_molecules.py and graph/edges.py are
// takes some microseconds, and twice that with its gradient. Every pair of a graph is looked at.
#pragma once

#include <cstdint>
#include <tuple>

#include "base/arguments.h"
#include "base/boxed.h"

namespace openmm_gnn {

// read (R, 3) float64, nm, the selected atoms first; box (3, 3) or (0, 3); hops (levels, R) and molecule (S,) of
// `WholeMolecules`; copies (C,), the selected atom of each atom of the graphs, and starts (G + 1,), where each graph
// begins among them. By the rule fading of graph/edges.py, or with 0 neighbours by the rule full.
//
// centred (S, 3) float32, the whole molecule about its centroid; the edges, ordered by target and source, an atom's own
// among them; and for the way back pairs (3, P): target, source and edge, -1 if it is none, and lengths (P, 4) float64:
// vector and distance before edges are stretched. No edge at all where a box is so narrow that atoms may have a periodic
// image of an atom within the cutoff.
inline constexpr char kMoleculeEdges[] =
    "molecule_edges(Tensor read, Tensor box, Tensor hops, Tensor molecule, Tensor copies, Tensor starts, float per_nm,"
    " float cutoff, int max_neighbors) -> (Tensor centred, Tensor edge_index, Tensor edge_vectors,"
    " Tensor edge_distances, Tensor pairs, Tensor lengths)";

// Forces (R, 3) float64, kJ/mol/nm, from the gradients of an energy by the edges and by centred.
inline constexpr char kMoleculeEdgesBackward[] =
    "molecule_edges_backward(Tensor read, Tensor copies, Tensor pairs, Tensor lengths, Tensor vector_gradient,"
    " Tensor distance_gradient, Tensor centred_gradient, float per_nm, float cutoff, int max_neighbors) -> Tensor";

struct MoleculeArguments {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, double, int64_t>;
  Tensor read, box, hops, molecule, copies, starts;
  double per_nm, cutoff;
  int64_t max_neighbors;
};

struct MoleculeGradients {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, double, double, int64_t>;
  Tensor read, copies, pairs, lengths, vectors, distances, centred;
  double per_nm, cutoff;
  int64_t max_neighbors;
};

using MoleculeEdges = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

MoleculeEdges molecule_edges_cpu(const MoleculeArguments&);

Tensor molecule_edges_backward_cpu(const MoleculeGradients&);

}  // namespace openmm_gnn
