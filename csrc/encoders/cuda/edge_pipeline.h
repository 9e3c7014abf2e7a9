// The launches of the operators of ../messages.h; `Launcher` is a CUDA stream (launch.h) or the grid emulator.
#pragma once

#include "encoders/cuda/attention_gradients.h"
#include "encoders/cuda/edge_sums.h"
#include "encoders/cuda/tensor_rows.h"

namespace openmm_gnn::cuda {

template <class Launcher>
void attention_rows(Launcher& launcher, const EdgeRows& rows, const EncoderEdges& geometry, const AttentionInputs& in,
                    float* scalars, float* vectors) {
  launcher.launch(rows.num_atoms, AttentionRowsKernel{rows, geometry, in, scalars, vectors});
}

// `sent` are the rows of the senders, whose `senders` are the receivers. Edges in no row have no gradient.
template <class Launcher>
void attention_gradient_rows(Launcher& launcher, const EdgeRows& rows, const EdgeRows& sent,
                             const EncoderEdges& geometry, const AttentionInputs& in, const AttentionGradients& out) {
  if (out.places != nullptr) {
    const size_t bytes = static_cast<size_t>(geometry.count) * sizeof(float);
    launcher.clear(out.directions, 3 * bytes);
    launcher.clear(out.envelope, bytes);
    launcher.clear(out.places, bytes);
  }
  launcher.launch(rows.num_atoms, AttentionReceiverGradients{rows, geometry, in, out});
  launcher.launch(sent.num_atoms, AttentionSenderGradients{sent, geometry, in, out});
}

template <class Launcher>
void edge_attention_rows(Launcher& launcher, const EdgeRows& rows, const EncoderEdges& geometry,
                         const EdgeLayerInputs& in, float* messages, float* scalars) {
  launcher.launch(rows.num_atoms, EdgeAttentionRowsKernel{rows, geometry, in, messages, scalars});
}

template <class Launcher>
void edge_vector_rows(Launcher& launcher, const EdgeRows& rows, const EncoderEdges& geometry, const EdgeLayerInputs& in,
                      float* vectors, float* changed) {
  launcher.launch(rows.num_atoms, EdgeVectorRowsKernel{rows, geometry, in, vectors, changed});
}

template <class Launcher>
void tensor_rows(Launcher& launcher, const EdgeRows& rows, const EncoderEdges& geometry, const TensorInputs& in,
                 float* parts) {
  if (in.parts == nullptr) {
    launcher.launch(rows.num_atoms, TensorRowsKernel<true>{rows, geometry, in, parts});
  } else {
    launcher.launch(rows.num_atoms, TensorRowsKernel<false>{rows, geometry, in, parts});
  }
}

template <class Launcher>
void filters_of_edges(Launcher& launcher, const double* places, int64_t count, const FilterTable& table,
                      float* filters) {
  launcher.launch(blocks_for(count * table.channels, FiltersKernel::kThreads),
                  FiltersKernel{places, count, table, filters});
}

template <class Launcher>
void tensors_of_atoms(Launcher& launcher, TensorFormula formula, int64_t num_atoms, int64_t width, const float* first,
                      const float* second, float* parts) {
  const int64_t blocks = blocks_for(num_atoms * width, 256);
  if (formula == TensorFormula::kScaled) {
    launcher.launch(blocks, TensorAtomsKernel<TensorFormula::kScaled>{num_atoms, width, first, second, parts});
  } else if (formula == TensorFormula::kProduct) {
    launcher.launch(blocks, TensorAtomsKernel<TensorFormula::kProduct>{num_atoms, width, first, second, parts});
  } else {
    launcher.launch(blocks, TensorAtomsKernel<TensorFormula::kSquare>{num_atoms, width, first, second, parts});
  }
}

}  // namespace openmm_gnn::cuda
