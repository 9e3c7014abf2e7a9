// The operators as PyTorch's dispatcher calls them: arguments and results on one stack (../neighbor_pairs.h).
#pragma once

#include <torch/csrc/stable/library.h>

namespace openmm_gnn::cuda {

void boxed_neighbor_pairs(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);
void boxed_update_neighbor_list(StableIValue* stack, uint64_t num_arguments, uint64_t num_results);

}  // namespace openmm_gnn::cuda
