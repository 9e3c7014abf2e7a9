// The CUDA library with the grid emulator in place of the GPU: csrc/neighbors/cuda/ops_cuda.cpp word for word, behind PyTorch's
// dispatcher, and so the other files of operators, under the names openmm_gnn_emulated::... for tensors on the CPU.
// So everything but nvcc's part and the calls below is tested on a machine without a GPU.
#define OPENMM_GNN_LIBRARY openmm_gnn_emulated
#define OPENMM_GNN_CUDA CPU

#include <torch/csrc/stable/accelerator.h>

#include <atomic>
#include <cstring>

#include "encoders/cuda/edge_pipeline.h"
#include "neighbors/cuda/frame_edges.h"
#include "neighbors/cuda/neighbor_lists.h"
#include "vector_gamd/cuda/pair_launches.h"
#include "neighbors/cuda/pipeline.h"
#include "vector_gamd/cuda/row_pipeline.h"
#include "gamd/cuda/tile_pipeline.h"
#include "grid_emulator.h"

namespace emulator {

// There is no device to choose and no stream to ask for.
struct Guard {
  explicit Guard(int32_t) {}
};
inline AOTITorchError stream_of(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
inline Launcher launcher() {
  static std::atomic<uint64_t> seed{0};
  return Launcher(++seed);
}

}  // namespace emulator

namespace torch::stable::accelerator {
using EmulatedGuard = emulator::Guard;
}

#include "ops.cpp"

#define DeviceGuard EmulatedGuard
#define aoti_torch_get_current_cuda_stream emulator::stream_of
#include "encoders/cuda/operators.cpp"
#include "neighbors/cuda/frame_operators.cpp"
#include "neighbors/cuda/ops_cuda.cpp"
#include "vector_gamd/cuda/pair_operators.cpp"
#include "vector_gamd/cuda/row_operators.cpp"
#include "gamd/cuda/tile_operators.cpp"

namespace openmm_gnn::cuda {

template <typename T>
Report find_pairs(StreamHandle, const System<T>& system, const Workspace<T>& work) {
  emulator::Launcher launcher = emulator::launcher();
  find_pairs(launcher, system, work);
  return *work.report;
}

template <typename T>
void write_pairs(StreamHandle, const System<T>& system, const Workspace<T>& work, const PairTensors<T>& output) {
  emulator::Launcher launcher = emulator::launcher();
  write_pairs(launcher, system, work, output);
}

template <typename T>
void update_list(StreamHandle, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work) {
  emulator::Launcher launcher = emulator::launcher();
  update_list(launcher, system, state, work);
}

template <typename T>
void emit_padded(StreamHandle, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work,
                 const PairTensors<T>& output) {
  emulator::Launcher launcher = emulator::launcher();
  emit_padded(launcher, system, state, work, output);
}

void read_back(StreamHandle, void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }

void launch_sort_rows(StreamHandle, const RowSort<2>& sort) {
  emulator::Launcher launcher = emulator::launcher();
  sort_rows(launcher, sort);
}

void launch_row_messages(StreamHandle, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                         float* scalars, float* vectors) {
  emulator::Launcher launcher = emulator::launcher();
  row_messages(launcher, rows, ends, in, scalars, vectors);
}

void launch_row_message_gradients(StreamHandle, const PairRows& rows, const PairEnds& ends, const RowMessages& in,
                                  const RowMessageGradients& out) {
  emulator::Launcher launcher = emulator::launcher();
  row_message_gradients(launcher, rows, ends, in, out);
}

void launch_row_strengths(StreamHandle, const PairEnds& ends, const RowStrengths& in, float* strengths) {
  emulator::Launcher launcher = emulator::launcher();
  row_strengths(launcher, ends, in, strengths);
}

void launch_row_strength_gradients(StreamHandle, const PairRows& rows, const PairEnds& ends, const RowStrengths& in,
                                   const RowStrengthGradients& out) {
  emulator::Launcher launcher = emulator::launcher();
  row_strength_gradients(launcher, rows, ends, in, out);
}

void launch_gamd_edges(StreamHandle, int64_t width, Products products, const GamdEdges& in) {
  emulator::Launcher launcher = emulator::launcher();
  gamd_edges(launcher, width, products, in);
}

void launch_gamd_messages(StreamHandle, int64_t width, Products products, const GamdMessages& in) {
  emulator::Launcher launcher = emulator::launcher();
  gamd_messages(launcher, width, products, in);
}

void launch_gamd_strengths(StreamHandle, int64_t width, Products products, const GamdStrengths& in) {
  emulator::Launcher launcher = emulator::launcher();
  gamd_strengths(launcher, width, products, in);
}

void launch_kinds_of_pairs(StreamHandle, const int64_t* pairs, int64_t count, const KindTables& tables,
                           int64_t* types) {
  emulator::Launcher launcher = emulator::launcher();
  kinds_of_pairs(launcher, pairs, count, tables, types);
}

void launch_spline_forces(StreamHandle, const int64_t* pairs, int64_t count, int64_t num_atoms,
                          const SplinePairs& source, const FixedSums& sums, float* forces, float* energy) {
  emulator::Launcher launcher = emulator::launcher();
  add_pair_forces(launcher, pairs, count, num_atoms, source, sums, forces, energy);
}

void launch_given_forces(StreamHandle, const int64_t* pairs, int64_t count, int64_t num_atoms,
                         const GivenPairs& source, const FixedSums& sums, float* forces) {
  emulator::Launcher launcher = emulator::launcher();
  add_pair_forces(launcher, pairs, count, num_atoms, source, sums, forces, nullptr);
}

void launch_sort_edges(StreamHandle, const RowSort<1>& sort) {
  emulator::Launcher launcher = emulator::launcher();
  sort_rows(launcher, sort);
}

void launch_attention_rows(StreamHandle, const EdgeRows& rows, const EncoderEdges& geometry, const AttentionInputs& in,
                           float* scalars, float* vectors) {
  emulator::Launcher launcher = emulator::launcher();
  attention_rows(launcher, rows, geometry, in, scalars, vectors);
}

void launch_attention_gradient_rows(StreamHandle, const EdgeRows& rows, const EdgeRows& sent,
                                    const EncoderEdges& geometry, const AttentionInputs& in, const AttentionGradients& out) {
  emulator::Launcher launcher = emulator::launcher();
  attention_gradient_rows(launcher, rows, sent, geometry, in, out);
}

void launch_edge_attention_rows(StreamHandle, const EdgeRows& rows, const EncoderEdges& geometry,
                                const EdgeLayerInputs& in, float* messages, float* scalars) {
  emulator::Launcher launcher = emulator::launcher();
  edge_attention_rows(launcher, rows, geometry, in, messages, scalars);
}

void launch_edge_vector_rows(StreamHandle, const EdgeRows& rows, const EncoderEdges& geometry,
                             const EdgeLayerInputs& in, float* vectors, float* changed) {
  emulator::Launcher launcher = emulator::launcher();
  edge_vector_rows(launcher, rows, geometry, in, vectors, changed);
}

void launch_tensor_rows(StreamHandle, const EdgeRows& rows, const EncoderEdges& geometry, const TensorInputs& in,
                        float* parts) {
  emulator::Launcher launcher = emulator::launcher();
  tensor_rows(launcher, rows, geometry, in, parts);
}

void launch_filters(StreamHandle, const double* places, int64_t count, const FilterTable& table, float* filters) {
  emulator::Launcher launcher = emulator::launcher();
  filters_of_edges(launcher, places, count, table, filters);
}

void launch_tensors_of_atoms(StreamHandle, TensorFormula formula, int64_t num_atoms, int64_t width, const float* first,
                             const float* second, float* parts) {
  emulator::Launcher launcher = emulator::launcher();
  tensors_of_atoms(launcher, formula, num_atoms, width, first, second, parts);
}

template <typename T>
EdgeReport count_frame_edges(StreamHandle, const FrameSearch<T>& search) {
  emulator::Launcher launcher = emulator::launcher();
  count_frame_edges(launcher, search);
  return *search.report;
}

template <typename T>
void write_frame_edges(StreamHandle, const FrameSearch<T>& search, const NearEdges<T>& near,
                       const EdgeIndex<T>& output) {
  emulator::Launcher launcher = emulator::launcher();
  write_frame_edges(launcher, search, near, output);
}

}  // namespace openmm_gnn::cuda
