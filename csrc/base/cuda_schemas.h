// The schemas of the operators of pair_rows.h, gamd_tiles.h and edge_rows.h, which exist on CUDA alone: on the CPU the
// operators of cpu/vector_network.h and cpu/encoder_messages.h read each pair or edge once, and GAMD is plain PyTorch. And
// of frame_edges, whose contract is in openmm_gnn/kernels/frame_edges.py: on the CPU each frame has a cell list. Macros, for
// the emulator of the tests registers the same under a name of its own.
#pragma once

#define OPENMM_GNN_CUDA_SCHEMAS(library)                                                                               \
  library.def("pair_rows(Tensor pairs, Tensor distances, float cutoff, int num_atoms) -> (Tensor starts, Tensor "     \
              "entries)");                                                                                            \
  library.def(                                                                                                        \
      "row_messages(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"     \
      " Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing,"       \
      " float start, float cutoff) -> (Tensor scalars, Tensor vectors)");                                             \
  library.def(                                                                                                        \
      "row_messages_backward(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors,"              \
      " Tensor distances, Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table,"    \
      " Tensor mixing, Tensor scalar_gradient, Tensor vector_gradient, float start, float cutoff, bool geometry)"     \
      " -> (Tensor source, Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor pair_vectors)");         \
  library.def(                                                                                                        \
      "row_strengths(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors, Tensor distances,"    \
      " Tensor total, Tensor left, Tensor probe, Tensor table, Tensor mixing, Tensor readout, float start,"           \
      " float cutoff) -> Tensor");                                                                                    \
  library.def(                                                                                                        \
      "row_strengths_backward(Tensor starts, Tensor entries, Tensor pairs, Tensor types, Tensor vectors,"             \
      " Tensor distances, Tensor total, Tensor left, Tensor probe, Tensor table, Tensor mixing, Tensor readout,"      \
      " Tensor strength_gradient, float start, float cutoff, bool geometry)"                                          \
      " -> (Tensor total, Tensor left, Tensor probe, Tensor pair_vectors)");                                          \
  library.def(                                                                                                        \
      "gamd_edges(Tensor pairs, Tensor distances, Tensor vectors, Tensor types, Tensor centers, Tensor radial,"       \
      " Tensor radial_bias, Tensor bonded, Tensor direction, Tensor out, Tensor out_bias, float cutoff, float scale," \
      " int products) -> (Tensor forward, Tensor backward)");                                                          \
  library.def(                                                                                                        \
      "gamd_messages(Tensor starts, Tensor entries, Tensor pairs, Tensor forward, Tensor backward, Tensor envelope,"  \
      " Tensor source, Tensor target, Tensor hidden, Tensor edge, Tensor edge_bias, Tensor gate, Tensor gate_bias,"   \
      " int products) -> Tensor");                                                                                     \
  library.def(                                                                                                        \
      "gamd_strengths(Tensor pairs, Tensor distances, Tensor edges, Tensor envelope, Tensor total, Tensor left,"      \
      " Tensor edge, Tensor edge_bias, Tensor hidden, Tensor hidden_bias, Tensor readout, Tensor readout_bias,"       \
      " float cutoff, int products) -> Tensor");

#define OPENMM_GNN_CUDA_FUNCTIONS(library)                                                     \
  library.impl("pair_rows", &openmm_gnn::cuda::boxed_pair_rows);                              \
  library.impl("row_messages", &openmm_gnn::cuda::boxed_row_messages);                        \
  library.impl("row_messages_backward", &openmm_gnn::cuda::boxed_row_messages_backward);      \
  library.impl("row_strengths", &openmm_gnn::cuda::boxed_row_strengths);                      \
  library.impl("row_strengths_backward", &openmm_gnn::cuda::boxed_row_strengths_backward);    \
  library.impl("gamd_edges", &openmm_gnn::cuda::boxed_gamd_edges);                            \
  library.impl("gamd_messages", &openmm_gnn::cuda::boxed_gamd_messages);                      \
  library.impl("gamd_strengths", &openmm_gnn::cuda::boxed_gamd_strengths);
