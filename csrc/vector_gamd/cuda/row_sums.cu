// The operators of ../pair_rows.h on the GPU; row_pipeline.h has their launches, each kernel's file what it computes.
#include "vector_gamd/cuda/row_sums.h"

#include "base/cuda/launch.h"
#include "vector_gamd/cuda/row_pipeline.h"

namespace openmm_gnn::cuda {

namespace {

StreamLauncher on(StreamHandle stream) { return StreamLauncher(static_cast<cudaStream_t>(stream)); }

}  // namespace

void launch_sort_rows(StreamHandle stream, const RowSort<2>& sort) {
  StreamLauncher launcher = on(stream);
  sort_rows(launcher, sort);
}

void launch_row_messages(StreamHandle stream, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                         float* scalars, float* vectors) {
  StreamLauncher launcher = on(stream);
  row_messages(launcher, rows, ends, in, scalars, vectors);
}

void launch_row_message_gradients(StreamHandle stream, const PairRows& rows, const PairEnds& ends,
                                  const RowMessages& in, const RowMessageGradients& out) {
  StreamLauncher launcher = on(stream);
  row_message_gradients(launcher, rows, ends, in, out);
}

void launch_row_strengths(StreamHandle stream, const PairEnds& ends, const RowStrengths& in, float* strengths) {
  StreamLauncher launcher = on(stream);
  row_strengths(launcher, ends, in, strengths);
}

void launch_row_strength_gradients(StreamHandle stream, const PairRows& rows, const PairEnds& ends,
                                   const RowStrengths& in, const RowStrengthGradients& out) {
  StreamLauncher launcher = on(stream);
  row_strength_gradients(launcher, rows, ends, in, out);
}

}  // namespace openmm_gnn::cuda
