// The way from PyTorch's dispatcher to the CUDA functions: checks, memory, device, stream. Compiled by the C++
// compiler; the kernels' side (neighbor_lists.h) knows nothing of torch.
//
// All memory comes from PyTorch's caching allocator: the results and one scratch tensor, whose sizes depend on shapes
// alone. So update_neighbor_list without trim can be captured in a CUDA graph. Its errors are bits of `status`
// (../neighbor_pairs.h), for nothing else could be captured; the operators that wait for a number throw, as on the CPU.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "base/tensor_access.h"
#include "base/cuda/boxed_operators.h"
#include "neighbors/cuda/neighbor_lists.h"
#include "neighbors/cuda/row_text.h"

namespace openmm_gnn::cuda {

namespace {

struct Arguments {
  Tensor positions, box_vectors;
  double cutoff, skin;
  bool full, geometry, trim;
  Tensor reference_positions, reference_box, stored_pairs, stored_shifts, status;  // update_neighbor_list only
};

struct Results {
  Tensor pairs, shifts, vectors, distances;
};

StreamHandle current_stream(const Tensor& positions) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(positions.get_device_index(), &stream));
  return stream;
}

template <typename T>
System<T> system_of(const Arguments& arguments, double cutoff) {
  const Tensor &positions = arguments.positions, &box = arguments.box_vectors;
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
  system.full = arguments.full;
  system.brute_force = system.num_atoms <= kBruteForceAtoms;
  return system;
}

// The scratch memory. The caching allocator knows the stream, so the tensor may go as soon as all is launched.
template <typename T>
Tensor make_workspace(const Tensor& positions, const System<T>& system, bool with_state, Workspace<T>& work) {
  const WorkShape shape{system.num_atoms, system.brute_force, with_state, strands_per_row(system.num_atoms)};
  Carver measure(nullptr);
  lay_out(measure, shape, work);
  Tensor scratch = empty(positions, {measure.used()}, aoti_torch_dtype_uint8());
  Carver carver(scratch.data_ptr());
  lay_out(carver, shape, work);
  return scratch;
}

template <typename T>
Results make_results(const Arguments& arguments, int64_t count, PairTensors<T>& output) {
  const Tensor& like = arguments.positions;
  const int32_t dtype = dtype_of(like);
  const int64_t geometry_rows = arguments.geometry ? count : 0;
  Results results{empty(like, {2, count}, aoti_torch_dtype_int64()),
                  empty(like, {count - geometry_rows, 3}, aoti_torch_dtype_int32()),
                  empty(like, {geometry_rows, 3}, dtype), empty(like, {geometry_rows}, dtype)};
  output.pairs = data<int64_t>(results.pairs);
  output.shifts = arguments.geometry ? nullptr : data<int32_t>(results.shifts);
  output.vectors = arguments.geometry ? data<T>(results.vectors) : nullptr;
  output.distances = arguments.geometry ? data<T>(results.distances) : nullptr;
  output.capacity = count;
  return results;
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
Results neighbor_pairs(const Arguments& arguments) {
  const StreamHandle stream = current_stream(arguments.positions);
  const System<T> system = system_of<T>(arguments, arguments.cutoff);
  PairTensors<T> output;
  Workspace<T> work;
  const Tensor scratch = make_workspace(arguments.positions, system, false, work);
  const Report report = find_pairs(stream, system, work);
  if (report.errors != 0) fail_search(stream, system, report.errors, report.bad_atom);
  Results results = make_results(arguments, report.found, output);
  write_pairs(stream, system, work, output);
  return results;
}

void check_state(const Arguments& arguments) {
  const Tensor& positions = arguments.positions;
  const auto same_device = [&](const Tensor& tensor) {
    return tensor.is_cuda() == positions.is_cuda() && tensor.get_device_index() == positions.get_device_index();
  };
  const auto shaped = [&](const Tensor& tensor, int64_t rows, int64_t columns, int32_t dtype) {
    return tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == columns && tensor.is_contiguous() &&
           dtype_of(tensor) == dtype && same_device(tensor);
  };
  check(shaped(arguments.reference_positions, positions.size(0), 3, dtype_of(positions)) &&
            shaped(arguments.reference_box, 3, 3, dtype_of(positions)),
        "the state of the neighbour list was made for another number of atoms, dtype or device: allocate it anew");
  check(arguments.stored_pairs.dim() == 2, "stored_pairs must be (2, capacity)");
  const int64_t capacity = arguments.stored_pairs.size(1);
  check(shaped(arguments.stored_pairs, 2, capacity, aoti_torch_dtype_int32()) &&
            shaped(arguments.stored_shifts, capacity, 3, aoti_torch_dtype_int32()),
        "stored_pairs must be (2, capacity) and stored_shifts (capacity, 3), int32, contiguous, on the positions' "
        "device");
  const Tensor& status = arguments.status;
  check(status.dim() == 1 && status.size(0) == kStatusSlots && status.is_contiguous() &&
            dtype_of(status) == aoti_torch_dtype_int64() && same_device(status),
        "status must be (8,) int64 on the positions' device");
}

template <typename T>
SkinState<T> state_of(const Arguments& arguments) {
  return {data<T>(arguments.reference_positions), data<T>(arguments.reference_box),
          data<int32_t>(arguments.stored_pairs), data<int32_t>(arguments.stored_shifts),
          data<int64_t>(arguments.status), arguments.stored_pairs.size(1), arguments.skin};
}

template <typename T>
[[noreturn]] void fail_update(StreamHandle stream, const System<T>& system, const SkinState<T>& state,
                              const Report& report) {
  if (report.errors != kErrorOverflow) fail_search(stream, system, report.errors, report.bad_atom);
  const int64_t atoms = system.num_atoms > 0 ? system.num_atoms : 1;
  fail("found " + std::to_string(report.found) + " neighbour pairs of " + std::to_string(system.num_atoms) +
       " atoms within cutoff + skin = " + std::to_string(system.cutoff) + ", capacity " +
       std::to_string(state.capacity) + ": raise max_neighbors to at least " +
       std::to_string((report.found + atoms - 1) / atoms));
}

template <typename T>
Results update_neighbor_list(const Arguments& arguments) {
  const StreamHandle stream = current_stream(arguments.positions);
  const System<T> system = system_of<T>(arguments, arguments.cutoff + arguments.skin);
  const SkinState<T> state = state_of<T>(arguments);
  PairTensors<T> output;
  Workspace<T> work;
  const Tensor scratch = make_workspace(arguments.positions, system, true, work);
  update_list(stream, system, state, work);
  if (!arguments.trim) {
    Results results = make_results(arguments, state.capacity, output);
    emit_padded(stream, system, state, work, output);
    return results;
  }
  const Tensor kept = empty(arguments.positions, {state.capacity}, aoti_torch_dtype_int32());
  Carver measure(nullptr);
  take_scan(measure, state.capacity);
  const Tensor sums = empty(arguments.positions, {measure.used()}, aoti_torch_dtype_uint8());
  Carver carver(sums.data_ptr());
  const ScanMemory scan = take_scan(carver, state.capacity);
  const WithinReport within = count_within(stream, state, work, arguments.cutoff, data<int32_t>(kept), scan);
  if (!within.valid) fail_update(stream, system, state, within.search);
  Results results = make_results(arguments, within.found, output);
  emit_within(stream, state, work, data<int32_t>(kept), scan, output);
  return results;
}

void push_results(const Results& results, StableIValue* stack) {
  stack[0] = push_tensor(results.pairs);
  stack[1] = push_tensor(results.shifts);
  stack[2] = push_tensor(results.vectors);
  stack[3] = push_tensor(results.distances);
}

}  // namespace

void boxed_neighbor_pairs(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{};
  arguments.positions = pop_tensor(stack[0]);
  arguments.box_vectors = pop_tensor(stack[1]);
  arguments.cutoff = pop_float(stack[2]);
  arguments.full = pop_bool(stack[3]);
  arguments.geometry = pop_bool(stack[4]);
  check_system(arguments.positions, arguments.box_vectors, arguments.cutoff);
  const torch::stable::accelerator::DeviceGuard guard(arguments.positions.get_device_index());
  push_results(is_float32(arguments.positions) ? neighbor_pairs<float>(arguments) : neighbor_pairs<double>(arguments),
               stack);
}

void boxed_update_neighbor_list(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{};
  arguments.positions = pop_tensor(stack[0]);
  arguments.box_vectors = pop_tensor(stack[1]);
  arguments.cutoff = pop_float(stack[2]);
  arguments.skin = pop_float(stack[3]);
  arguments.full = pop_bool(stack[4]);
  arguments.geometry = pop_bool(stack[5]);
  arguments.trim = pop_bool(stack[6]);
  arguments.reference_positions = pop_tensor(stack[8]);
  arguments.reference_box = pop_tensor(stack[9]);
  arguments.stored_pairs = pop_tensor(stack[10]);
  arguments.stored_shifts = pop_tensor(stack[11]);
  arguments.status = pop_tensor(stack[12]);
  check_system(arguments.positions, arguments.box_vectors, arguments.cutoff);
  check(arguments.skin >= 0 && arguments.skin < 1e18,
        "skin is " + std::to_string(arguments.skin) + ": give a finite length, 0 or more");
  check_state(arguments);
  const torch::stable::accelerator::DeviceGuard guard(arguments.positions.get_device_index());
  push_results(is_float32(arguments.positions) ? update_neighbor_list<float>(arguments)
                                               : update_neighbor_list<double>(arguments),
               stack);
}

}  // namespace openmm_gnn::cuda
