// Checks, memory, device and stream of the operators of ../pair_rows.h, between PyTorch's dispatcher and row_sums.cu.
#include <torch/csrc/stable/accelerator.h>

#include "base/cuda/boxed_operators.h"
#include "base/cuda/device_arguments.h"
#include "vector_gamd/cuda/row_messages.h"
#include "vector_gamd/cuda/row_sums.h"

namespace openmm_gnn::cuda {

namespace {

void check_width(int64_t width) {
  check(width > 0 && width % 16 == 0 && width <= kRowThreads,
        "the width is " + std::to_string(width) + ": give a multiple of 16, at most " + std::to_string(kRowThreads));
}

float* or_null_output(const Tensor& tensor) { return tensor.numel() > 0 ? data<float>(tensor) : nullptr; }

// Arguments 0 to 5 of every operator below: rows, pairs, types, vectors, distances.
struct Given {
  Tensor starts, entries, pairs, types, vectors, distances;
  PairRows rows;
  PairEnds ends;
};

Given pop_given(StableIValue* stack, int64_t num_atoms_hint) {
  Given given{pop_tensor(stack[0]), pop_tensor(stack[1]), pop_tensor(stack[2]), pop_tensor(stack[3]),
              pop_tensor(stack[4]), pop_tensor(stack[5]), {}, {}};
  check_pairs(given.pairs);
  const int64_t count = given.pairs.size(1);
  check_argument(given.starts, "starts", {num_atoms_hint + 1}, aoti_torch_dtype_int32(), given.pairs);
  check_argument(given.entries, "entries", {2 * count}, aoti_torch_dtype_int32(), given.pairs);
  check_argument(given.types, "types", {count}, aoti_torch_dtype_int64(), given.pairs);
  check_floats(given.vectors, "vectors", {count, 3}, given.pairs);
  check_floats(given.distances, "distances", {count}, given.pairs);
  given.rows = {data<int32_t>(given.starts), data<int32_t>(given.entries)};
  given.ends = {count, data<int64_t>(given.pairs), data<int64_t>(given.types), data<float>(given.vectors),
                data<float>(given.distances)};
  return given;
}

SplineTable spline_table(const Tensor& table, double start, double cutoff) {
  check(table.size(1) >= 4 && start >= 0 && start < cutoff, "a radial table needs 4 knots and start below cutoff");
  return {data<float>(table), table.size(1), table.size(2), static_cast<float>(start), static_cast<float>(cutoff)};
}

struct MessageTensors {
  Tensor source, target, value, probe, carried, table, mixing;
};

// Arguments 6 to 12; start and cutoff stand at `numbers`.
MessageTensors pop_message_tensors(StableIValue* stack) {
  return {pop_tensor(stack[6]), pop_tensor(stack[7]),  pop_tensor(stack[8]), pop_tensor(stack[9]),
          pop_tensor(stack[10]), pop_tensor(stack[11]), pop_tensor(stack[12])};
}

RowMessages messages_of(const MessageTensors& in, const Given& given, double start, double cutoff) {
  const int64_t atoms = in.value.size(0), width = in.value.size(1), vector_atoms = in.probe.size(0) == 0 ? 0 : atoms;
  check_width(width);
  check_floats(in.source, "source", {atoms, 3 * width}, given.pairs);
  check_floats(in.target, "target", {atoms, 3 * width}, given.pairs);
  check_floats(in.value, "value", {atoms, width}, given.pairs);
  check_floats(in.probe, "probe", {vector_atoms, 3, width}, given.pairs);
  check_floats(in.carried, "carried", {vector_atoms, 3, width}, given.pairs);
  check_floats(in.table, "table", {-1, -1, 3 * width}, given.pairs);
  check_floats(in.mixing, "mixing", {3, 3 * width}, given.pairs);
  return {atoms, width, data<float>(in.source), data<float>(in.target), data<float>(in.value), or_null(in.probe),
          or_null(in.carried), spline_table(in.table, start, cutoff), data<float>(in.mixing)};
}

struct StrengthTensors {
  Tensor total, left, probe, table, mixing, readout;
};

StrengthTensors pop_strength_tensors(StableIValue* stack) {
  return {pop_tensor(stack[6]), pop_tensor(stack[7]), pop_tensor(stack[8]),
          pop_tensor(stack[9]), pop_tensor(stack[10]), pop_tensor(stack[11])};
}

RowStrengths strengths_of(const StrengthTensors& in, const Given& given, double start, double cutoff) {
  const int64_t atoms = in.total.size(0), width = in.total.size(1);
  check_width(width);
  check_floats(in.total, "total", {atoms, width}, given.pairs);
  check_floats(in.left, "left", {atoms, width}, given.pairs);
  check_floats(in.probe, "probe", {atoms, 3, width}, given.pairs);
  check_floats(in.table, "table", {-1, -1, width}, given.pairs);
  check_floats(in.mixing, "mixing", {3, width}, given.pairs);
  check_floats(in.readout, "readout", {width}, given.pairs);
  return {atoms, width, data<float>(in.total), data<float>(in.left), data<float>(in.probe),
          spline_table(in.table, start, cutoff), data<float>(in.mixing), data<float>(in.readout)};
}

}  // namespace

void boxed_pair_rows(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), distances = pop_tensor(stack[1]);
  const double cutoff = pop_float(stack[2]);
  const int64_t atoms = pop_int(stack[3]);
  check_pairs(pairs);
  const int64_t count = pairs.size(1);
  check_floats(distances, "distances", {count}, pairs);
  check(atoms >= 0 && atoms < (int64_t(1) << 30), "num_atoms is " + std::to_string(atoms) + ": give 0 to 2^30 - 1");
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const Tensor starts = empty(pairs, {atoms + 1}, aoti_torch_dtype_int32());
  const Tensor entries = empty(pairs, {2 * count}, aoti_torch_dtype_int32());
  RowSort<2> sort{data<int64_t>(pairs), data<float>(distances), count, atoms, static_cast<float>(cutoff),
               nullptr, nullptr, nullptr, {}, data<int32_t>(starts), data<int32_t>(entries)};
  const Tensor scratch = scratch_of(pairs, [&](Carver& carver) { take_sort(carver, sort); });
  launch_sort_rows(stream_of_device(pairs), sort);
  stack[0] = push_tensor(starts);
  stack[1] = push_tensor(entries);
}

void boxed_row_messages(StableIValue* stack, uint64_t, uint64_t) {
  const MessageTensors tensors = pop_message_tensors(stack);
  check(tensors.value.dim() == 2, "value has shape " + shape_text(tensors.value) + ": give (number of atoms, width)");
  const Given given = pop_given(stack, tensors.value.size(0));
  const RowMessages in = messages_of(tensors, given, pop_float(stack[13]), pop_float(stack[14]));
  const torch::stable::accelerator::DeviceGuard guard(given.pairs.get_device_index());
  const Tensor scalars = floats_like(tensors.value, {in.num_atoms, in.width});
  const Tensor vectors = floats_like(tensors.value, {in.num_atoms, 3, in.width});
  launch_row_messages(stream_of_device(given.pairs), given.rows, given.ends, in, data<float>(scalars),
                      data<float>(vectors));
  stack[0] = push_tensor(scalars);
  stack[1] = push_tensor(vectors);
}

void boxed_row_messages_backward(StableIValue* stack, uint64_t, uint64_t) {
  const MessageTensors tensors = pop_message_tensors(stack);
  const Tensor from_scalars = pop_tensor(stack[13]), from_vectors = pop_tensor(stack[14]);
  check(tensors.value.dim() == 2, "value has shape " + shape_text(tensors.value) + ": give (number of atoms, width)");
  const Given given = pop_given(stack, tensors.value.size(0));
  const RowMessages in = messages_of(tensors, given, pop_float(stack[15]), pop_float(stack[16]));
  const bool geometry = pop_bool(stack[17]);
  check_floats(from_scalars, "the gradient of scalars", {in.num_atoms, in.width}, given.pairs);
  check_floats(from_vectors, "the gradient of vectors", {in.num_atoms, 3, in.width}, given.pairs);
  const torch::stable::accelerator::DeviceGuard guard(given.pairs.get_device_index());
  const Tensor& like = tensors.value;
  const int64_t vector_atoms = tensors.probe.size(0);
  const Tensor results[] = {floats_like(like, {in.num_atoms, 3 * in.width}),
                            floats_like(like, {in.num_atoms, 3 * in.width}),
                            floats_like(like, {in.num_atoms, in.width}),
                            floats_like(like, {vector_atoms, 3, in.width}),
                            floats_like(like, {vector_atoms, 3, in.width}),
                            floats_like(like, {geometry ? given.ends.count : 0, 3})};
  const RowMessageGradients out{data<float>(from_scalars), data<float>(from_vectors), data<float>(results[0]),
                                data<float>(results[1]), data<float>(results[2]), or_null_output(results[3]),
                                or_null_output(results[4]), or_null_output(results[5])};
  launch_row_message_gradients(stream_of_device(given.pairs), given.rows, given.ends, in, out);
  for (int k = 0; k < 6; ++k) stack[k] = push_tensor(results[k]);
}

void boxed_row_strengths(StableIValue* stack, uint64_t, uint64_t) {
  const StrengthTensors tensors = pop_strength_tensors(stack);
  check(tensors.total.dim() == 2, "total has shape " + shape_text(tensors.total) + ": give (number of atoms, width)");
  const Given given = pop_given(stack, tensors.total.size(0));
  const RowStrengths in = strengths_of(tensors, given, pop_float(stack[12]), pop_float(stack[13]));
  const torch::stable::accelerator::DeviceGuard guard(given.pairs.get_device_index());
  const Tensor strengths = floats_like(tensors.total, {given.ends.count});
  launch_row_strengths(stream_of_device(given.pairs), given.ends, in, data<float>(strengths));
  stack[0] = push_tensor(strengths);
}

void boxed_row_strengths_backward(StableIValue* stack, uint64_t, uint64_t) {
  const StrengthTensors tensors = pop_strength_tensors(stack);
  const Tensor from_strengths = pop_tensor(stack[12]);
  check(tensors.total.dim() == 2, "total has shape " + shape_text(tensors.total) + ": give (number of atoms, width)");
  const Given given = pop_given(stack, tensors.total.size(0));
  const RowStrengths in = strengths_of(tensors, given, pop_float(stack[13]), pop_float(stack[14]));
  const bool geometry = pop_bool(stack[15]);
  check_floats(from_strengths, "the gradient of strengths", {given.ends.count}, given.pairs);
  const torch::stable::accelerator::DeviceGuard guard(given.pairs.get_device_index());
  const Tensor& like = tensors.total;
  const Tensor results[] = {floats_like(like, {in.num_atoms, in.width}), floats_like(like, {in.num_atoms, in.width}),
                            floats_like(like, {in.num_atoms, 3, in.width}),
                            floats_like(like, {geometry ? given.ends.count : 0, 3})};
  const RowStrengthGradients out{data<float>(from_strengths), data<float>(results[0]), data<float>(results[1]),
                                 data<float>(results[2]), or_null_output(results[3])};
  launch_row_strength_gradients(stream_of_device(given.pairs), given.rows, given.ends, in, out);
  for (int k = 0; k < 4; ++k) stack[k] = push_tensor(results[k]);
}

}  // namespace openmm_gnn::cuda
