// What edge_sums.cu offers to operators.cpp: plain pointers on the device, no torch. Nothing here waits.
#pragma once

#include "encoders/messages.h"
#include "base/cuda/sort_rows.h"

namespace openmm_gnn::cuda {

// A cudaStream_t without the CUDA headers, as in neighbor_lists.h.
using StreamHandle = void*;

// Of tensors of atoms: scaled, product, square of common/cartesian_tensors.inl.
enum class TensorFormula { kScaled, kProduct, kSquare };

void launch_sort_edges(StreamHandle stream, const RowSort<1>& sort);

void launch_attention_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                           const AttentionInputs& in, float* scalars, float* vectors);

void launch_attention_gradient_rows(StreamHandle stream, const EdgeRows& rows, const EdgeRows& sent,
                                    const EncoderEdges& geometry, const AttentionInputs& in, const AttentionGradients& out);

void launch_edge_attention_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                                const EdgeLayerInputs& in, float* messages, float* scalars);

void launch_edge_vector_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                             const EdgeLayerInputs& in, float* vectors, float* changed);

void launch_tensor_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry, const TensorInputs& in,
                        float* parts);

void launch_filters(StreamHandle stream, const double* places, int64_t count, const FilterTable& table,
                    float* filters);

void launch_tensors_of_atoms(StreamHandle stream, TensorFormula formula, int64_t num_atoms, int64_t width,
                             const float* first, const float* second, float* parts);

}  // namespace openmm_gnn::cuda
