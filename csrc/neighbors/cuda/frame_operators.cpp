// Checks, memory, device and stream of frame_edges (../cuda_schemas.h), between PyTorch's dispatcher and frame_edges.cu.
#include <torch/csrc/stable/accelerator.h>

#include <stdexcept>

#include "base/cuda/boxed_operators.h"
#include "base/cuda/device_arguments.h"
#include "neighbors/cuda/frame_search.h"
#include "neighbors/cuda/row_text.h"

namespace openmm_gnn::cuda {

namespace {

struct FrameArguments {
  Tensor positions, frames;  // frames (0,): all atoms are one frame
  double cutoff;
  int64_t most;
  bool nearest;
};

void check_frames(const FrameArguments& arguments) {
  check(arguments.most >= (arguments.nearest ? 1 : 0),
        "most is " + std::to_string(arguments.most) + ": give at least 1, or 0 for all edges in the order of sources");
  const Tensor &positions = arguments.positions, &frames = arguments.frames;
  check(positions.dim() == 2 && positions.size(1) == 3,
        "positions has shape " + shape_text(positions) + ": give (number of atoms, 3)");
  check(is_float32(positions) || is_float64(positions), "positions must be float32 or float64");
  check(positions.size(0) < (int64_t(1) << 30), "positions holds " + std::to_string(positions.size(0)) +
                                                    " atoms: at most 2^30 - 1 are supported");
  check(arguments.cutoff > 0 && arguments.cutoff < 1e18,
        "cutoff is " + std::to_string(arguments.cutoff) + ": give a finite length above 0");
  check(frames.is_cuda() == positions.is_cuda() && frames.get_device_index() == positions.get_device_index(),
        "batch and positions are on different devices: move one of them");
  const bool one_frame = frames.dim() == 1 && frames.size(0) == 0;
  check_argument(frames, "batch", {one_frame ? 0 : positions.size(0)}, aoti_torch_dtype_int64(), positions);
}

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

}  // namespace

void boxed_frame_edges(StableIValue* stack, uint64_t, uint64_t) {
  const FrameArguments arguments{pop_tensor(stack[0]), pop_tensor(stack[1]), pop_float(stack[2]), pop_int(stack[3]),
                                 pop_bool(stack[4])};
  check_frames(arguments);
  const torch::stable::accelerator::DeviceGuard guard(arguments.positions.get_device_index());
  stack[0] = push_tensor(is_float32(arguments.positions) ? frame_edges<float>(arguments)
                                                         : frame_edges<double>(arguments));
}

}  // namespace openmm_gnn::cuda
