// Energy and forces of a whole networks/vector_gamd.py with weights that are not trained, at one set of positions:
// neighbour lists, network, pair term and charges, forth and back, in one call.
//
// A step of 22 atoms takes some 0.2 ms; the operations of PyTorch that the network is made of, and autograd's, take more
// by themselves. Nothing is differentiated afterwards: forces are a result, so a module with this operator needs no
// gradient that Python registers.
#pragma once

namespace openmm_gnn {

// From reference_positions to status, each list is the state of update_neighbor_list, in neighbors/neighbor_pairs.h, and
// `kinds` (capacity,) int32 the kinds of its stored pairs, which are found anew when the pairs are.
//
// positions (N, 3) and box_vectors (3, 3) or (0, 3), nm, as there; species (N,) and partners as for pair_types.
// weights: `VectorGAMD.packed_weights`. scale: of the energy where `conservative`, else of the forces.
// pair_table: (kinds, intervals, 4) float64, the pair term's splines as polynomials of the place in each interval of [start,
// far_cutoff], kJ/mol; empty for no pair term, and then nothing is read of the far list.
// charges: (num_species,), particle_mesh's units, with a grid of size_a x size_b x size_c points; empty for none.
// energy: 0-d, kJ/mol, 0 unless `conservative`; forces (N, 3), kJ/mol/nm; both of the positions' type. On CUDA, where nothing
// waits for the device, both are NaN in place of an error, and if less than 1.8 points of the grid lie in a charge's width.
inline constexpr char kVectorGamdForces[] =
    "vector_gamd_forces(Tensor positions, Tensor box_vectors, Tensor species, Tensor partners, Tensor weights,"
    " int num_species, int num_kinds, int width, int num_layers, int num_knots, float start, float scale,"
    " bool conservative,"
    " float near_cutoff, float near_skin, Tensor(a!) near_positions, Tensor(b!) near_box, Tensor(c!) near_pairs,"
    " Tensor(d!) near_shifts, Tensor(e!) near_kinds, Tensor(f!) near_status,"
    " float far_cutoff, float far_skin, Tensor(g!) far_positions, Tensor(h!) far_box, Tensor(i!) far_pairs,"
    " Tensor(j!) far_shifts, Tensor(k!) far_kinds, Tensor(l!) far_status,"
    " Tensor pair_table, Tensor charges, float charge_width, int size_a, int size_b, int size_c, int num_threads)"
    " -> (Tensor energy, Tensor forces)";

}  // namespace openmm_gnn
