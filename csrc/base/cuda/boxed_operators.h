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

// ../edge_rows.h; the last three have schemas of cpu/encoder_messages.h
void boxed_edge_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_attention_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_attention_rows_backward(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_edge_attention_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_edge_vector_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_tensor_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_first_tensor_rows(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_scaled_tensors(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_tensor_products(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_tensor_squares(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);

}  // namespace openmm_gnn::cuda
