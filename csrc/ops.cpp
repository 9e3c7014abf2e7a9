// Schemas of the operators, and the way from PyTorch's dispatcher to the CPU functions.
//
// The CUDA library registers its own functions for the same schemas; it is loaded after this one.

#include "base/cpu/operators.h"
#include "base/cuda_schemas.h"

namespace openmm_gnn {

namespace {

void push_pairs(const PairTensors& result, StableIValue* stack) {
  stack[0] = push_tensor(result.pairs);
  stack[1] = push_tensor(result.shifts);
  stack[2] = push_tensor(result.vectors);
  stack[3] = push_tensor(result.distances);
}

void boxed_neighbor_pairs(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor positions = pop_tensor(stack[0]), box_vectors = pop_tensor(stack[1]);
  push_pairs(neighbor_pairs_cpu(positions, box_vectors, pop_float(stack[2]), pop_bool(stack[3]), pop_bool(stack[4]),
                                pop_int(stack[5])),
             stack);
}

void boxed_update_neighbor_list(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor positions = pop_tensor(stack[0]), box_vectors = pop_tensor(stack[1]);
  const ListState state{pop_tensor(stack[8]), pop_tensor(stack[9]), pop_tensor(stack[10]), pop_tensor(stack[11]),
                        pop_tensor(stack[12])};
  push_pairs(update_neighbor_list_cpu(positions, box_vectors, pop_float(stack[2]), pop_float(stack[3]),
                                      pop_bool(stack[4]), pop_bool(stack[5]), pop_bool(stack[6]), pop_int(stack[7]),
                                      state),
             stack);
}

void push_all(const std::vector<Tensor>& results, StableIValue* stack) {
  for (size_t k = 0; k < results.size(); ++k) stack[k] = push_tensor(results[k]);
}

// The operators of vector_network.h: four tensors of the pairs, then their own, then start, cutoff and threads.
PairInputs pop_pairs(StableIValue* stack, int num_tensors) {
  return {pop_tensor(stack[0]),
          pop_tensor(stack[1]),
          pop_tensor(stack[2]),
          pop_tensor(stack[3]),
          pop_float(stack[num_tensors]),
          pop_float(stack[num_tensors + 1]),
          pop_int(stack[num_tensors + 2])};
}

MessageInputs pop_messages(StableIValue* stack) {
  return {pop_tensor(stack[4]), pop_tensor(stack[5]), pop_tensor(stack[6]), pop_tensor(stack[7]),
          pop_tensor(stack[8]), pop_tensor(stack[9]), pop_tensor(stack[10])};
}

StrengthInputs pop_strengths(StableIValue* stack) {
  return {pop_tensor(stack[4]), pop_tensor(stack[5]), pop_tensor(stack[6]),
          pop_tensor(stack[7]), pop_tensor(stack[8]), pop_tensor(stack[9])};
}

void boxed_vector_messages(StableIValue* stack, uint64_t, uint64_t) {
  const PairInputs pairs = pop_pairs(stack, 11);
  push_all(vector_messages_cpu(pairs, pop_messages(stack)), stack);
}

void boxed_vector_messages_backward(StableIValue* stack, uint64_t, uint64_t) {
  const PairInputs pairs = pop_pairs(stack, 13);
  const MessageInputs inputs = pop_messages(stack);
  const Tensor scalars = pop_tensor(stack[11]), vectors = pop_tensor(stack[12]);
  push_all(vector_messages_backward_cpu(pairs, inputs, scalars, vectors, pop_bool(stack[16]), pop_bool(stack[17])),
           stack);
}

void boxed_pair_strengths(StableIValue* stack, uint64_t, uint64_t) {
  const PairInputs pairs = pop_pairs(stack, 10);
  stack[0] = push_tensor(pair_strengths_cpu(pairs, pop_strengths(stack)));
}

void boxed_pair_strengths_backward(StableIValue* stack, uint64_t, uint64_t) {
  const PairInputs pairs = pop_pairs(stack, 11);
  const StrengthInputs inputs = pop_strengths(stack);
  const Tensor strengths = pop_tensor(stack[10]);
  push_all(pair_strengths_backward_cpu(pairs, inputs, strengths, pop_bool(stack[14]), pop_bool(stack[15])), stack);
}

void boxed_pair_types(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), species = pop_tensor(stack[1]), partners = pop_tensor(stack[2]);
  stack[0] = push_tensor(pair_types_cpu(pairs, species, partners, pop_int(stack[3])));
}

void boxed_radial_pair_forces(StableIValue* stack, uint64_t, uint64_t) {
  const PairInputs pairs = pop_pairs(stack, 5);
  const Tensor table = pop_tensor(stack[4]);
  push_all(radial_pair_forces_cpu(pairs, table, pop_int(stack[8])), stack);
}

void boxed_mesh_charges(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor positions = pop_tensor(stack[0]), charges = pop_tensor(stack[1]), box = pop_tensor(stack[2]);
  stack[0] = push_tensor(mesh_charges_cpu(positions, charges, box, pop_int(stack[3]), pop_int(stack[4]),
                                          pop_int(stack[5]), pop_int(stack[6]), pop_int(stack[7])));
}

void boxed_mesh_influence(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor transform = pop_tensor(stack[0]), box = pop_tensor(stack[1]);
  mesh_influence_cpu(transform, box, pop_float(stack[2]), pop_int(stack[3]), pop_int(stack[4]), pop_int(stack[5]));
}

void boxed_mesh_forces(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor positions = pop_tensor(stack[0]), charges = pop_tensor(stack[1]), box = pop_tensor(stack[2]);
  const Tensor potential = pop_tensor(stack[3]);
  push_all(mesh_forces_cpu(positions, charges, box, potential, pop_int(stack[4]), pop_int(stack[5])), stack);
}

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY(openmm_gnn, library) {
  library.def(
      "neighbor_pairs(Tensor positions, Tensor box_vectors, float cutoff, bool full, bool geometry, int num_threads)"
      " -> (Tensor pairs, Tensor shifts, Tensor vectors, Tensor distances)");
  library.def(
      "update_neighbor_list(Tensor positions, Tensor box_vectors, float cutoff, float skin, bool full, bool geometry,"
      " bool trim, int num_threads, Tensor(a!) reference_positions, Tensor(b!) reference_box, Tensor(c!) stored_pairs,"
      " Tensor(d!) stored_shifts, Tensor(e!) status)"
      " -> (Tensor pairs, Tensor shifts, Tensor vectors, Tensor distances)");
  library.def(
      "vector_messages(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor source, Tensor target,"
      " Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing, float start, float cutoff,"
      " int num_threads) -> (Tensor scalars, Tensor vectors)");
  library.def(
      "vector_messages_backward(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor source,"
      " Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing, Tensor scalar_gradient,"
      " Tensor vector_gradient, float start, float cutoff, int num_threads, bool geometry, bool weights)"
      " -> (Tensor source,"
      " Tensor target, Tensor value, Tensor probe, Tensor carried, Tensor table, Tensor mixing, Tensor pair_vectors)");
  library.def(
      "pair_strengths(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor total, Tensor left,"
      " Tensor probe, Tensor table, Tensor mixing, Tensor readout, float start, float cutoff, int num_threads)"
      " -> Tensor");
  library.def(
      "pair_strengths_backward(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor total, Tensor left,"
      " Tensor probe, Tensor table, Tensor mixing, Tensor readout, Tensor strength_gradient, float start, float cutoff,"
      " int num_threads, bool geometry, bool weights) -> (Tensor total, Tensor left, Tensor probe, Tensor table, Tensor mixing,"
      " Tensor readout, Tensor pair_vectors)");
  library.def("pair_types(Tensor pairs, Tensor species, Tensor partners, int num_species) -> Tensor");
  library.def(
      "radial_pair_forces(Tensor pairs, Tensor types, Tensor vectors, Tensor distances, Tensor table, float start,"
      " float cutoff, int num_threads, int num_atoms) -> (Tensor forces, Tensor energy)");
  library.def(
      "mesh_charges(Tensor positions, Tensor charges, Tensor box, int size_a, int size_b, int size_c, int order,"
      " int num_threads) -> Tensor");
  library.def(
      "mesh_influence(Tensor(a!) transform, Tensor box, float width, int size_c, int order, int num_threads) -> ()");
  library.def(
      "mesh_forces(Tensor positions, Tensor charges, Tensor box, Tensor potential, int order, int num_threads)"
      " -> (Tensor forces, Tensor energy)");
  OPENMM_GNN_CUDA_SCHEMAS(library)
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("neighbor_pairs", &openmm_gnn::boxed_neighbor_pairs);
  library.impl("update_neighbor_list", &openmm_gnn::boxed_update_neighbor_list);
  library.impl("pair_types", &openmm_gnn::boxed_pair_types);
  library.impl("radial_pair_forces", &openmm_gnn::boxed_radial_pair_forces);
  library.impl("mesh_charges", &openmm_gnn::boxed_mesh_charges);
  library.impl("mesh_influence", &openmm_gnn::boxed_mesh_influence);
  library.impl("mesh_forces", &openmm_gnn::boxed_mesh_forces);
  library.impl("vector_messages", &openmm_gnn::boxed_vector_messages);
  library.impl("vector_messages_backward", &openmm_gnn::boxed_vector_messages_backward);
  library.impl("pair_strengths", &openmm_gnn::boxed_pair_strengths);
  library.impl("pair_strengths_backward", &openmm_gnn::boxed_pair_strengths_backward);
}
