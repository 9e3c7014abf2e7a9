// Schemas of the operators, and the way from PyTorch's dispatcher to the CPU functions.
//
// The CUDA library registers its own functions for the same schemas; it is loaded after this one.

#include "base/boxed.h"
#include "base/cpu/operators.h"
#include "base/cuda_schemas.h"

namespace openmm_gnn {

namespace {

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

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY(openmm_gnn, library) {
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
  OPENMM_GNN_CUDA_SCHEMAS(library)
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("vector_messages", &openmm_gnn::boxed_vector_messages);
  library.impl("vector_messages_backward", &openmm_gnn::boxed_vector_messages_backward);
  library.impl("pair_strengths", &openmm_gnn::boxed_pair_strengths);
  library.impl("pair_strengths_backward", &openmm_gnn::boxed_pair_strengths_backward);
}
