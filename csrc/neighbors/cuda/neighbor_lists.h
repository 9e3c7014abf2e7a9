// What the GPU half of this library offers to its tensor half (ops_cuda.cpp): plain pointers on the device, no torch.
#pragma once

#include "neighbors/cuda/pair_actions.h"

namespace openmm_gnn::cuda {

// A cudaStream_t without the CUDA headers.
using StreamHandle = void*;

// Starts the search of neighbor_pairs, waits for it, and returns the number of pairs. The one wait of this operator: it
// has to know how many pairs to make room for. Not possible inside a CUDA graph; the error says so.
template <typename T>
Report find_pairs(StreamHandle stream, const System<T>& system, const Workspace<T>& work);

// Writes the pairs that `find_pairs` counted; output.capacity is their number.
template <typename T>
void write_pairs(StreamHandle stream, const System<T>& system, const Workspace<T>& work, const PairTensors<T>& output);

// Brings the stored list up to date. Never waits.
template <typename T>
void update_list(StreamHandle stream, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work);

// All stored pairs and padding. Never waits.
template <typename T>
void emit_padded(StreamHandle stream, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work,
                 const PairTensors<T>& output);

// Copies `bytes` from the device and waits; for error messages.
void read_back(StreamHandle stream, void* to, const void* from, size_t bytes);

}  // namespace openmm_gnn::cuda
