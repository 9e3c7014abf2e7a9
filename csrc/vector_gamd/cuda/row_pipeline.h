// The launches of the operators of ../pair_rows.h; `Launcher` is a CUDA stream (launch.h) or the grid emulator.
#pragma once

#include "vector_gamd/cuda/pair_sums.h"
#include "base/cuda/sort_rows.h"

namespace openmm_gnn::cuda {

template <class Launcher>
void row_messages(Launcher& launcher, const PairRows& rows, const PairEnds& ends, const RowMessages& in, float* scalars,
                  float* vectors) {
  const int64_t blocks = row_blocks(in.num_atoms, in.width);
  if (in.probe != nullptr) {
    launcher.launch(blocks, RowMessagesKernel<true>{rows, ends, in, scalars, vectors});
  } else {
    launcher.launch(blocks, RowMessagesKernel<false>{rows, ends, in, scalars, vectors});
  }
}

template <bool kVectors, class Launcher>
void row_message_gradients_of(Launcher& launcher, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                              const RowMessageGradients& out) {
  launcher.launch(row_blocks(in.num_atoms, in.width), RowMessageGradientsKernel<kVectors>{rows, ends, in, out});
  if (out.pair_vectors == nullptr) return;
  launcher.launch(row_blocks(ends.count, in.width), PairMessageGradientsKernel<kVectors>{ends, in, out});
}

template <class Launcher>
void row_message_gradients(Launcher& launcher, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                           const RowMessageGradients& out) {
  if (in.probe != nullptr) {
    row_message_gradients_of<true>(launcher, rows, ends, in, out);
  } else {
    row_message_gradients_of<false>(launcher, rows, ends, in, out);
  }
}

template <class Launcher>
void row_strengths(Launcher& launcher, const PairEnds& ends, const RowStrengths& in, float* strengths) {
  launcher.launch(row_blocks(ends.count, in.width), PairStrengthsKernel{ends, in, strengths});
}

template <class Launcher>
void row_strength_gradients(Launcher& launcher, const PairRows& rows, const PairEnds& ends, const RowStrengths& in,
                            const RowStrengthGradients& out) {
  launcher.launch(row_blocks(in.num_atoms, in.width), RowStrengthGradientsKernel{rows, ends, in, out});
  if (out.pair_vectors == nullptr) return;
  launcher.launch(row_blocks(ends.count, in.width), PairStrengthGradientsKernel{ends, in, out});
}

}  // namespace openmm_gnn::cuda
