// The operators of ../messages.h on the GPU; edge_pipeline.h has their launches, each kernel's file what it computes.
#include "encoders/cuda/edge_sums.h"

#include "encoders/cuda/edge_pipeline.h"
#include "base/cuda/launch.h"

namespace openmm_gnn::cuda {

namespace {

StreamLauncher on(StreamHandle stream) { return StreamLauncher(static_cast<cudaStream_t>(stream)); }

}  // namespace

void launch_sort_edges(StreamHandle stream, const RowSort<1>& sort) {
  StreamLauncher launcher = on(stream);
  sort_rows(launcher, sort);
}

void launch_attention_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                           const AttentionInputs& in, float* scalars, float* vectors) {
  StreamLauncher launcher = on(stream);
  attention_rows(launcher, rows, geometry, in, scalars, vectors);
}

void launch_attention_gradient_rows(StreamHandle stream, const EdgeRows& rows, const EdgeRows& sent,
                                    const EncoderEdges& geometry, const AttentionInputs& in, const AttentionGradients& out) {
  StreamLauncher launcher = on(stream);
  attention_gradient_rows(launcher, rows, sent, geometry, in, out);
}

void launch_edge_attention_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                                const EdgeLayerInputs& in, float* messages, float* scalars) {
  StreamLauncher launcher = on(stream);
  edge_attention_rows(launcher, rows, geometry, in, messages, scalars);
}

void launch_edge_vector_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry,
                             const EdgeLayerInputs& in, float* vectors, float* changed) {
  StreamLauncher launcher = on(stream);
  edge_vector_rows(launcher, rows, geometry, in, vectors, changed);
}

void launch_tensor_rows(StreamHandle stream, const EdgeRows& rows, const EncoderEdges& geometry, const TensorInputs& in,
                        float* parts) {
  StreamLauncher launcher = on(stream);
  tensor_rows(launcher, rows, geometry, in, parts);
}

void launch_filters(StreamHandle stream, const double* places, int64_t count, const FilterTable& table,
                    float* filters) {
  StreamLauncher launcher = on(stream);
  filters_of_edges(launcher, places, count, table, filters);
}

void launch_tensors_of_atoms(StreamHandle stream, TensorFormula formula, int64_t num_atoms, int64_t width,
                             const float* first, const float* second, float* parts) {
  StreamLauncher launcher = on(stream);
  tensors_of_atoms(launcher, formula, num_atoms, width, first, second, parts);
}

}  // namespace openmm_gnn::cuda
