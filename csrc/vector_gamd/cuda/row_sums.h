// What row_sums.cu offers to row_operators.cpp: plain pointers on the device, no torch. Nothing here waits.
#pragma once

#include "base/cuda/sort_rows.h"

namespace openmm_gnn::cuda {

// A cudaStream_t without the CUDA headers, as in neighbor_lists.h.
using StreamHandle = void*;

void launch_sort_rows(StreamHandle stream, const RowSort<2>& sort);

void launch_row_messages(StreamHandle stream, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                         float* scalars, float* vectors);

void launch_row_message_gradients(StreamHandle stream, const PairRows& rows, const PairEnds& ends,
                                  const RowMessages& in, const RowMessageGradients& out);

void launch_row_strengths(StreamHandle stream, const PairEnds& ends, const RowStrengths& in, float* strengths);

void launch_row_strength_gradients(StreamHandle stream, const PairRows& rows, const PairEnds& ends,
                                   const RowStrengths& in, const RowStrengthGradients& out);

}  // namespace openmm_gnn::cuda
