// Schemas of the operators, and the way from PyTorch's dispatcher to the CPU functions.
//
// The CUDA library registers its own functions for the same schemas; it is loaded after this one.

#include "cpu/operators.h"

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
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("neighbor_pairs", &openmm_gnn::boxed_neighbor_pairs);
  library.impl("update_neighbor_list", &openmm_gnn::boxed_update_neighbor_list);
}
