// The way from PyTorch's dispatcher to the CUDA functions: checks, memory, device, stream. Compiled by the C++
// compiler; the kernels' side (neighbor_lists.h) knows nothing of torch.
//
// All memory comes from PyTorch's caching allocator: the results and one scratch tensor, whose sizes depend on shapes
// alone. So update_neighbor_list can be captured in a CUDA graph. Its errors are bits of `status` (../neighbor_pairs.h),
// for nothing else could be captured; neighbor_pairs, which waits for the number of pairs, throws, as on the CPU.
#include "base/cuda/device_arguments.h"
#include "neighbors/cuda/neighbor_lists.h"
#include "neighbors/cuda/row_text.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn::cuda {

namespace {

template <typename T>
System<T> system_of(const Tensor& positions, const Tensor& box, double cutoff, bool full) {
  const bool open = box.size(0) == 0;
  System<T> system;
  system.positions = data<const T>(positions);
  system.row_stride = positions.stride(0);
  system.column_stride = positions.stride(1);
  system.num_atoms = positions.size(0);
  system.box = open ? nullptr : data<const T>(box);
  system.box_row_stride = open ? 0 : box.stride(0);
  system.box_column_stride = open ? 0 : box.stride(1);
  system.cutoff = cutoff;
  system.full = full;
  system.brute_force = system.num_atoms <= kBruteForceAtoms;
  return system;
}

template <typename T>
Tensor make_workspace(const Tensor& positions, const System<T>& system, bool with_state, Workspace<T>& work) {
  const WorkShape shape{system.num_atoms, system.brute_force, with_state, strands_per_row(system.num_atoms)};
  return scratch_of(positions, [&](auto& carver) { lay_out(carver, shape, work); });
}

template <typename T>
PairTensors<T> pointers_of(const PairResults& results, bool geometry) {
  const auto& [pairs, shifts, vectors, distances] = results;
  return {data<int64_t>(pairs), geometry ? nullptr : data<int32_t>(shifts), geometry ? data<T>(vectors) : nullptr,
          geometry ? data<T>(distances) : nullptr, pairs.size(1)};
}

template <typename T>
[[noreturn]] void fail_search(StreamHandle stream, const System<T>& system, int64_t errors, int64_t bad_atom) {
  if ((errors & (kErrorBox | kErrorImages)) != 0) {
    std::string box;
    for (int k = 0; k < 3; ++k) {
      box += (k ? ", " : " ") + row_text(stream, system.box + k * system.box_row_stride, system.box_column_stride);
    }
    if ((errors & kErrorBox) != 0) {
      fail("box_vectors" + box + " span no volume: give three finite, independent vectors, or no box for an open "
           "boundary");
    }
    fail("the cutoff " + std::to_string(system.cutoff) + " reaches over more than a million images of the box" + box +
         ": reduce the cutoff or enlarge the box");
  }
  bool finite = true;
  const T* atom = system.positions + bad_atom * system.row_stride;
  const std::string place = row_text(stream, atom, system.column_stride, &finite);
  fail("the position of atom " + std::to_string(bad_atom) + " is " + place + ": " +
       (finite ? "it is more than a million box lengths away; wrap it into the box first"
               : "it must be finite; the simulation has probably blown up before this step"));
}

template <typename T>
PairResults find(const Tensor& positions, const Tensor& box_vectors, double cutoff, bool full, bool geometry) {
  const StreamHandle stream = stream_of_device(positions);
  const System<T> system = system_of<T>(positions, box_vectors, cutoff, full);
  Workspace<T> work;
  const Tensor scratch = make_workspace(positions, system, false, work);
  const Report report = find_pairs(stream, system, work);
  if (report.errors != 0) fail_search(stream, system, report.errors, report.bad_atom);
  const PairResults results = new_pairs(positions, report.found, geometry);
  write_pairs(stream, system, work, pointers_of<T>(results, geometry));
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
  const ListState<T> given = checked_state<T>(in);
  const SkinState<T> state{given.reference_positions, given.reference_box, given.stored_pairs, given.stored_shifts,
                           given.status,              given.capacity,      in.skin};
  const StreamHandle stream = stream_of_device(in.positions);
  const System<T> system = system_of<T>(in.positions, in.box_vectors, in.cutoff + in.skin, in.full);
  Workspace<T> work;
  const Tensor scratch = make_workspace(in.positions, system, true, work);
  update_list(stream, system, state, work);
  const PairResults results = new_pairs(in.positions, state.capacity, in.geometry);
  emit_padded(stream, system, state, work, pointers_of<T>(results, in.geometry));
  return results;
}

PairResults update_neighbor_list_cuda(const ListArguments& in) {
  check_system(in.positions, in.box_vectors, in.cutoff);
  check(!in.trim, "a list on CUDA has the shape of its capacity: give trim = false, or ask neighbor_pairs");
  const DeviceGuard guard(in.positions.get_device_index());
  return is_float32(in.positions) ? update<float>(in) : update<double>(in);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(OPENMM_GNN_LIBRARY, OPENMM_GNN_CUDA, library) {
  implement<kNeighborPairs, neighbor_pairs_cuda>(library);
  implement<kUpdateNeighborList, update_neighbor_list_cuda>(library);
}

}  // namespace openmm_gnn::cuda
