// The operators as PyTorch's dispatcher calls them: arguments and results on one stack (../neighbor_pairs.h and the files
// named below).
#pragma once

#include <torch/csrc/stable/library.h>

namespace openmm_gnn::cuda {


// ../pair_rows.h
void boxed_pair_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_row_messages(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_row_messages_backward(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_row_strengths(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_row_strengths_backward(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);

// ../gamd_tiles.h
void boxed_gamd_edges(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_gamd_messages(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_gamd_strengths(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);

}  // namespace openmm_gnn::cuda
