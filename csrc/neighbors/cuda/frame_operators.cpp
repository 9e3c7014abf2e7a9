// Checks, memory, device and stream of frame_edges (../neighbor_pairs.h), between PyTorch's dispatcher and frame_edges.cu.
#include <stdexcept>

#include "base/cuda/device_arguments.h"
#include "neighbors/cuda/frame_search.h"
#include "neighbors/cuda/row_text.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn::cuda {

namespace {

struct FrameArguments {
  Tensor positions, frames;  // frames (0,): all atoms are one frame
  double cutoff;
  int64_t most;
  bool nearest;

  using Fields = std::tuple<Tensor, Tensor, double, int64_t, bool>;
};

template <typename T>
[[noreturn]] void fail_frames(StreamHandle stream, const FrameSearch<T>& search, const EdgeReport& report) {
  // Python meets it as a ValueError.
  if (report.bad_frames != 0) {
    throw std::invalid_argument("the frames in batch must be numbered from 0 and not fall: sort the atoms by frame");
  }
  const int64_t atom = search.num_atoms + report.bad_atom;
  fail("the position of atom " + std::to_string(atom) + " is " +
       row_text(stream, search.positions + atom * search.row_stride, search.column_stride) +
       ": it must be finite; the simulation has probably blown up before this step");
}

template <typename T>
Tensor frame_edges(const FrameArguments& arguments) {
  const Tensor& positions = arguments.positions;
  const int64_t atoms = positions.size(0);
  if (atoms == 0) return empty(positions, {2, 0}, aoti_torch_dtype_int64());
  const StreamHandle stream = stream_of_device(positions);
  FrameSearch<T> search{};
  search.positions = data<const T>(positions);
  search.row_stride = positions.stride(0);
  search.column_stride = positions.stride(1);
  search.frames = arguments.frames.size(0) > 0 ? data<int64_t>(arguments.frames) : nullptr;
  search.num_atoms = atoms;
  search.cutoff = static_cast<T>(arguments.cutoff);
  search.most = arguments.most;
  search.nearest = arguments.nearest;
  search.strands = strands_per_row(atoms);
  const Tensor scratch = scratch_of(positions, [&](Carver& carver) { lay_out_frames(carver, search); });
  const EdgeReport report = count_frame_edges(stream, search);
  if (report.bad_frames != 0 || report.bad_atom != 0) fail_frames(stream, search, report);
  if (report.too_large != 0) return empty(positions, {2, 0}, aoti_torch_dtype_int64());
  NearEdges<T> near{};
  const int64_t candidates = search.nearest ? report.found : 0;
  const Tensor unranked = scratch_of(positions, [&](Carver& carver) { lay_out_near(carver, candidates, near); });
  const int64_t count = search.nearest ? report.kept : report.found;
  const Tensor index = empty(positions, {2, count}, aoti_torch_dtype_int64());
  write_frame_edges(stream, search, near, EdgeIndex<T>{data<int64_t>(index), count});
  return index;
}

Tensor frame_edges_cuda(const FrameArguments& in) {
  check(in.most >= (in.nearest ? 1 : 0),
        "most is " + std::to_string(in.most) + ": give at least 1, or 0 for all edges in the order of sources");
  check_positions(in.positions, in.cutoff);
  const bool one_frame = in.frames.dim() == 1 && in.frames.size(0) == 0;
  CheckedArguments(in.positions, "positions")
      .get<int64_t>(in.frames, "batch", {one_frame ? 0 : in.positions.size(0)});
  const DeviceGuard guard(in.positions.get_device_index());
  return is_float32(in.positions) ? frame_edges<float>(in) : frame_edges<double>(in);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(OPENMM_GNN_LIBRARY, OPENMM_GNN_CUDA, library) {
  implement<kFrameEdges, frame_edges_cuda>(library);
}

}  // namespace openmm_gnn::cuda
