// Checks, memory, device and stream of the operators of ../gamd_tiles.h, between PyTorch's dispatcher and tile_sums.cu.
#include <torch/csrc/stable/accelerator.h>

#include "base/cuda/boxed_operators.h"
#include "base/cuda/device_arguments.h"
#include "gamd/cuda/tile_sums.h"

namespace openmm_gnn::cuda {

namespace {

constexpr int64_t kMostRadial = 64;  // or the width, if that is larger

void check_tile_width(int64_t width) {
  check(is_tile_width(width), "the width is " + std::to_string(width) + ": give 16, 32, 64 or 128");
}

TilePairs tile_pairs(const Tensor& pairs, const Tensor& distances, double cutoff) {
  check_pairs(pairs);
  check_floats(distances, "distances", {pairs.size(1)}, pairs);
  return {pairs.size(1), data<int64_t>(pairs), data<float>(distances), static_cast<float>(cutoff)};
}

LinearMap linear_map(const Tensor& weight, const Tensor& bias, int64_t outputs, int64_t inputs, const Tensor& like) {
  check_floats(weight, "the weight of a linear map", {outputs, inputs}, like);
  check_floats(bias, "the bias of a linear map", {outputs}, like);
  return {data<float>(weight), data<float>(bias), static_cast<int>(inputs)};
}

Products pop_products(StableIValue value) {
  const int64_t products = pop_int(value);
  check(products >= 0 && products <= 2,
        "products is " + std::to_string(products) + ": give 0 for float32, 1 for TF32 or 2 for bfloat16");
  return static_cast<Products>(products);
}

}  // namespace

// pairs, distances, vectors, types, centers, radial weight and bias, bonded, direction, out weight and bias, cutoff,
// scale, products.
void boxed_gamd_edges(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), distances = pop_tensor(stack[1]), vectors = pop_tensor(stack[2]);
  const Tensor types = pop_tensor(stack[3]), centers = pop_tensor(stack[4]);
  const Tensor radial = pop_tensor(stack[5]), radial_bias = pop_tensor(stack[6]), bonded = pop_tensor(stack[7]);
  const Tensor direction = pop_tensor(stack[8]), out = pop_tensor(stack[9]), out_bias = pop_tensor(stack[10]);
  check(out.dim() == 2 && centers.dim() == 1, "the weights of a linear map must be (outputs, inputs)");
  const int64_t width = out.size(0), num_radial = centers.size(0);
  check_tile_width(width);
  check(num_radial >= 1 && num_radial <= (width > kMostRadial ? width : kMostRadial),
        "num_radial is " + std::to_string(num_radial) + ": give at most 64, or the width");
  GamdEdges in{};
  in.pairs = tile_pairs(pairs, distances, pop_float(stack[11]));
  const int64_t count = in.pairs.count;
  check_floats(vectors, "vectors", {count, 3}, pairs);
  check_floats(centers, "centers", {num_radial}, pairs);
  const bool has_bonds = bonded.numel() > 0, has_direction = direction.numel() > 0;
  if (has_bonds) {
    check_floats(bonded, "bonded", {-1, width}, pairs);
    check_argument(types, "types", {count}, aoti_torch_dtype_int64(), pairs);
  }
  if (has_direction) check_floats(direction, "direction", {width, 3}, pairs);
  in.vectors = data<float>(vectors);
  in.types = has_bonds ? data<int64_t>(types) : nullptr;
  in.centers = data<float>(centers);
  in.scale = static_cast<float>(pop_float(stack[12]));
  in.radial = linear_map(radial, radial_bias, width, num_radial, pairs);
  in.bonded = or_null(bonded);
  in.direction = or_null(direction);
  in.out = linear_map(out, out_bias, width, width, pairs);
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const Tensor forward = floats_like(out, {count, width});
  const Tensor backward = floats_like(out, {has_direction ? count : 0, width});
  in.forward = data<float>(forward);
  in.backward = has_direction ? data<float>(backward) : nullptr;
  launch_gamd_edges(stream_of_device(pairs), width, pop_products(stack[13]), in);
  stack[0] = push_tensor(forward);
  stack[1] = push_tensor(backward);
}

// starts, entries, pairs, forward, backward, envelope, source, target, hidden, edge weight and bias, gate weight and
// bias, products.
void boxed_gamd_messages(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor starts = pop_tensor(stack[0]), entries = pop_tensor(stack[1]), pairs = pop_tensor(stack[2]);
  const Tensor forward = pop_tensor(stack[3]), backward = pop_tensor(stack[4]), envelope = pop_tensor(stack[5]);
  const Tensor source = pop_tensor(stack[6]), target = pop_tensor(stack[7]), hidden = pop_tensor(stack[8]);
  const Tensor edge = pop_tensor(stack[9]), edge_bias = pop_tensor(stack[10]);
  const Tensor gate = pop_tensor(stack[11]), gate_bias = pop_tensor(stack[12]);
  check_pairs(pairs);
  check(hidden.dim() == 2, "hidden has shape " + shape_text(hidden) + ": give (number of atoms, width)");
  const int64_t count = pairs.size(1), atoms = hidden.size(0), width = hidden.size(1);
  check_tile_width(width);
  check_argument(starts, "starts", {atoms + 1}, aoti_torch_dtype_int32(), pairs);
  check_argument(entries, "entries", {2 * count}, aoti_torch_dtype_int32(), pairs);
  check_floats(forward, "forward", {count, width}, pairs);
  const bool same = backward.numel() == 0;
  if (!same) check_floats(backward, "backward", {count, width}, pairs);
  check_floats(envelope, "envelope", {count}, pairs);
  check_floats(source, "source", {atoms, width}, pairs);
  check_floats(target, "target", {atoms, width}, pairs);
  check_floats(hidden, "hidden", {atoms, width}, pairs);
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const Tensor sums = floats_like(hidden, {atoms, width});
  GamdMessages in{};
  in.num_atoms = atoms;
  in.starts = data<int32_t>(starts);
  in.entries = data<int32_t>(entries);
  in.pairs = {count, data<int64_t>(pairs), nullptr, 0.f};
  in.forward = data<float>(forward);
  in.backward = same ? in.forward : data<float>(backward);
  in.envelope = data<float>(envelope);
  in.source = data<float>(source);
  in.target = data<float>(target);
  in.hidden = data<float>(hidden);
  in.edge = linear_map(edge, edge_bias, width, width, pairs);
  in.gate = linear_map(gate, gate_bias, width, width, pairs);
  in.sums = data<float>(sums);
  launch_gamd_messages(stream_of_device(pairs), width, pop_products(stack[13]), in);
  stack[0] = push_tensor(sums);
}

// pairs, distances, edges, envelope, total, left, edge weight and bias, hidden weight and bias, readout and its bias,
// cutoff, products.
void boxed_gamd_strengths(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor pairs = pop_tensor(stack[0]), distances = pop_tensor(stack[1]), edges = pop_tensor(stack[2]);
  const Tensor envelope = pop_tensor(stack[3]), total = pop_tensor(stack[4]), left = pop_tensor(stack[5]);
  const Tensor edge = pop_tensor(stack[6]), edge_bias = pop_tensor(stack[7]);
  const Tensor hidden = pop_tensor(stack[8]), hidden_bias = pop_tensor(stack[9]);
  const Tensor readout = pop_tensor(stack[10]), readout_bias = pop_tensor(stack[11]);
  check(total.dim() == 2, "total has shape " + shape_text(total) + ": give (number of atoms, width)");
  const int64_t atoms = total.size(0), width = total.size(1);
  check_tile_width(width);
  GamdStrengths in{};
  in.pairs = tile_pairs(pairs, distances, pop_float(stack[12]));
  const int64_t count = in.pairs.count;
  check_floats(edges, "edges", {count, width}, pairs);
  check_floats(envelope, "envelope", {count}, pairs);
  check_floats(total, "total", {atoms, width}, pairs);
  check_floats(left, "left", {atoms, width}, pairs);
  check_floats(readout, "readout", {1, width}, pairs);
  check_floats(readout_bias, "the bias of readout", {1}, pairs);
  const torch::stable::accelerator::DeviceGuard guard(pairs.get_device_index());
  const Tensor strengths = floats_like(total, {count});
  in.edges = data<float>(edges);
  in.envelope = data<float>(envelope);
  in.total = data<float>(total);
  in.left = data<float>(left);
  in.edge = linear_map(edge, edge_bias, width, width, pairs);
  in.hidden = linear_map(hidden, hidden_bias, width, width, pairs);
  in.readout = data<float>(readout);
  in.readout_bias = data<float>(readout_bias);
  in.strengths = data<float>(strengths);
  launch_gamd_strengths(stream_of_device(pairs), width, pop_products(stack[13]), in);
  stack[0] = push_tensor(strengths);
}

}  // namespace openmm_gnn::cuda
