// The launches of the operators of ../edge_rows.h; `Launcher` is a CUDA stream (launch.h) or the grid emulator.
#pragma once

#include "encoders/cuda/attention_gradients.h"
#include "encoders/cuda/edge_sums.h"
#include "encoders/cuda/tensor_rows.h"

namespace openmm_gnn::cuda {

template <class Launcher>
void attention_rows(Launcher& launcher, const EdgeRows& rows, const EdgeGeometry& geometry, const AttentionRows& in,
                    float* scalars, float* vectors) {
  launcher.launch(rows.num_atoms, AttentionRowsKernel{rows, geometry, in, scalars, vectors});
}

// `heard` are the rows of the senders, whose `senders` are the receivers. Edges in no row have no gradient.
template <class Launcher>
void attention_gradient_rows(Launcher& launcher, const EdgeRows& rows, const EdgeRows& heard, int64_t num_edges,
                             const EdgeGeometry& geometry, const AttentionRows& in, const AttentionGradients& out) {
  if (out.places != nullptr) {
    const size_t bytes = static_cast<size_t>(num_edges) * sizeof(float);
    launcher.clear(out.directions, 3 * bytes);
    launcher.clear(out.envelope, bytes);
    launcher.clear(out.places, bytes);
  }
  launcher.launch(rows.num_atoms, AttentionReceiverGradients{rows, geometry, in, out});
  launcher.launch(heard.num_atoms, AttentionSenderGradients{heard, geometry, in, out});
}

template <class Launcher>
void edge_attention_rows(Launcher& launcher, const EdgeRows& rows, const EdgeGeometry& geometry,
                         const EdgeAttentionRows& in, float* messages, float* scalars) {
  launcher.launch(rows.num_atoms, EdgeAttentionRowsKernel{rows, geometry, in, messages, scalars});
}

template <class Launcher>
void edge_vector_rows(Launcher& launcher, const EdgeRows& rows, const EdgeGeometry& geometry, const EdgeVectorRows& in,
                      float* vectors, float* changed) {
  launcher.launch(rows.num_atoms, EdgeVectorRowsKernel{rows, geometry, in, vectors, changed});
}

template <class Launcher>
void tensor_rows(Launcher& launcher, const EdgeRows& rows, const EdgeGeometry& geometry, const TensorRows& in,
                 float* parts) {
  if (in.parts == nullptr) {
    launcher.launch(rows.num_atoms, TensorRowsKernel<true>{rows, geometry, in, parts});
  } else {
    launcher.launch(rows.num_atoms, TensorRowsKernel<false>{rows, geometry, in, parts});
  }
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
