// The way from PyTorch's dispatcher to the CUDA functions: checks, memory, device, stream. Compiled by the C++
// compiler; the kernels' side (pipeline.h) knows nothing of torch.
//
// All memory comes from PyTorch's caching allocator: the results and one scratch tensor, whose sizes depend on shapes
// alone. So update_neighbor_list can be captured in a CUDA graph. Its errors are bits of `status` (../neighbor_pairs.h),
// for nothing else could be captured; neighbor_pairs, which waits for the number of pairs, throws, as on the CPU.
#include <stdexcept>

#include "base/cuda/device_arguments.h"
#include "neighbors/cuda/frame_edges.h"
#include "neighbors/cuda/lists.h"
#include "neighbors/cuda/pipeline.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn::cuda {

namespace {

// ---- neighbor_pairs and update_neighbor_list ------------------------------------------------------------------------

template <typename T>
PairTensors<T> pointers_of(const PairResults& results, bool geometry) {
  const auto& [pairs, shifts, vectors, distances] = results;
  return {data<int64_t>(pairs), geometry ? nullptr : data<int32_t>(shifts), geometry ? data<T>(vectors) : nullptr,
          geometry ? data<T>(distances) : nullptr, pairs.size(1)};
}

template <typename T>
[[noreturn]] void fail_search(const StreamLauncher& launcher, const System<T>& system, int64_t errors, int64_t bad_atom) {
  if ((errors & (kErrorBox | kErrorImages)) != 0) {
    std::string box;
    for (int k = 0; k < 3; ++k) {
      box += (k ? ", " : " ") + row_text(launcher, system.box + k * system.box_row_stride, system.box_column_stride);
    }
    if ((errors & kErrorBox) != 0) {
      fail("box_vectors" + box + " span no volume: give three finite, independent vectors, or no box for an open "
           "boundary");
    }
    fail("the cutoff " + std::to_string(system.cutoff) + " reaches over more than a million images of the box" + box +
         ", or finds more than 1e12 candidates of pairs: reduce the cutoff or enlarge the box; are both in the same unit?");
  }
  bool finite = true;
  const T* atom = system.positions + bad_atom * system.row_stride;
  const std::string place = row_text(launcher, atom, system.column_stride, &finite);
  fail("the position of atom " + std::to_string(bad_atom) + " is " + place + ": " +
       (finite ? "it is more than a million box lengths away; wrap it into the box first"
               : "it must be finite; the simulation has probably blown up before this step"));
}

template <typename T>
PairResults find(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full, bool geometry) {
  const StreamLauncher launcher = launcher_of(positions);
  const System<T> system = system_of<T>(positions, box_vectors, cutoff, full);
  Workspace<T> work;
  const Tensor scratch = make_workspace(positions, system, false, work);
  find_pairs(launcher, system, work);
  Report report;  // the number of pairs, to make room for
  launcher.read_back(&report, work.report, sizeof(report));
  if (report.errors != 0) fail_search(launcher, system, report.errors, report.bad_atom);
  const PairResults results = new_pairs(positions, report.found, geometry);
  write_pairs(launcher, system, work, pointers_of<T>(results, geometry));
  return results;
}

PairResults neighbor_pairs_cuda(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full,
                                bool geometry, int64_t) {
  check_system(positions, box_vectors, cutoff);
  const DeviceGuard guard(positions.get_device_index());
  return is_float32(positions) ? find<float>(positions, box_vectors, cutoff, full, geometry)
                               : find<double>(positions, box_vectors, cutoff, full, geometry);
}

template <typename T>
PairResults update(const ListArguments& in) {
  const SkinState<T> state = skin_state<T>(in);
  const StreamLauncher launcher = launcher_of(in.positions);
  const System<T> system = system_of<T>(in.positions, in.box_vectors, in.cutoff + in.skin, in.full);
  Workspace<T> work;
  const Tensor scratch = make_workspace(in.positions, system, true, work);
  update_list(launcher, system, state, work);
  const PairResults results = new_pairs(in.positions, state.capacity, in.geometry);
  emit_padded(launcher, system, state, work, pointers_of<T>(results, in.geometry));
  return results;
}

PairResults update_neighbor_list_cuda(const ListArguments& in) {
  check_system(in.positions, in.box_vectors, in.cutoff);
  check(!in.trim, "a list on CUDA has the shape of its capacity: give trim = false, or ask neighbor_pairs");
  const DeviceGuard guard(in.positions.get_device_index());
  return is_float32(in.positions) ? update<float>(in) : update<double>(in);
}

// ---- frame_edges ----------------------------------------------------------------------------------------------------

struct FrameArguments {
  Tensor positions, frames;  // frames (0,): all atoms are one frame
  double cutoff;
  int64_t most;
  bool nearest;

  using Fields = std::tuple<Tensor, Tensor, double, int64_t, bool>;
};

template <typename T>
[[noreturn]] void fail_frames(const StreamLauncher& launcher, const FrameSearch<T>& search, const EdgeReport& report) {
  // Python meets it as a ValueError.
  if (report.bad_frames != 0) {
    throw std::invalid_argument("the frames in batch must be numbered from 0 and not fall: sort the atoms by frame");
  }
  const int64_t atom = search.num_atoms + report.bad_atom;
  fail("the position of atom " + std::to_string(atom) + " is " +
       row_text(launcher, search.positions + atom * search.row_stride, search.column_stride) +
       ": it must be finite; the simulation has probably blown up before this step");
}

template <typename T>
Tensor frame_edges(const FrameArguments& arguments) {
  const Tensor& positions = arguments.positions;
  const int64_t atoms = positions.size(0);
  if (atoms == 0) return empty(positions, {2, 0}, aoti_torch_dtype_int64());
  const StreamLauncher launcher = launcher_of(positions);
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
  count_frame_edges(launcher, search);
  EdgeReport report;
  launcher.read_back(&report, search.report, sizeof(report));
  if (report.bad_frames != 0 || report.bad_atom != 0) fail_frames(launcher, search, report);
  if (report.too_large != 0) return empty(positions, {2, 0}, aoti_torch_dtype_int64());
  NearEdges<T> near{};
  const int64_t candidates = search.nearest ? report.found : 0;
  const Tensor unranked = scratch_of(positions, [&](Carver& carver) { lay_out_near(carver, candidates, near); });
  const int64_t count = search.nearest ? report.kept : report.found;
  const Tensor index = empty(positions, {2, count}, aoti_torch_dtype_int64());
  write_frame_edges(launcher, search, near, EdgeIndex<T>{data<int64_t>(index), count});
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

OPENMM_GNN_CUDA_OPERATORS(library) {
  implement<kNeighborPairs, neighbor_pairs_cuda>(library);
  implement<kUpdateNeighborList, update_neighbor_list_cuda>(library);
  implement<kFrameEdges, frame_edges_cuda>(library);
}

}  // namespace openmm_gnn::cuda
