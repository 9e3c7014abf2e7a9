// Checks, memory, device and stream of the operators of ../gamd_tiles.h, between PyTorch's dispatcher and the kernels.
#include "base/boxed.h"
#include "base/cuda/device_arguments.h"
#include "gamd/cuda/tile_messages.h"
#include "gamd/cuda/tile_pairs.h"

namespace openmm_gnn::cuda {

namespace {

constexpr int64_t kMostRadial = 64;  // or the width, if that is larger

struct LinearTensors {
  Tensor weight, bias;

  using Fields = std::tuple<Tensor, Tensor>;
};

void check_tile_width(int64_t width) {
  check(width == 16 || width == 32 || width == 64 || width == 128,
        "the width is " + std::to_string(width) + ": give 16, 32, 64 or 128");
}

// Launches the kernel of a width that was checked.
template <template <int> class Kernel, class In>
void launch_tiles(const Tensor& like, int64_t blocks, int64_t width, const In& in) {
  const StreamLauncher launcher = launcher_of(like);
  if (width == 16) return launcher.launch(blocks, Kernel<16>{in});
  if (width == 32) return launcher.launch(blocks, Kernel<32>{in});
  if (width == 64) return launcher.launch(blocks, Kernel<64>{in});
  launcher.launch(blocks, Kernel<128>{in});
}

TilePairs tile_pairs(const CheckedArguments& given, const Tensor& pairs, const Tensor& distances, double cutoff,
                     int64_t num_atoms = INT64_MAX) {
  const int64_t* ends = given.get<int64_t>(pairs, "pairs", {2, kAny});
  const int64_t count = pairs.size(1);
  check_num_pairs(count);
  return {count, ends, given.get<float>(distances, "distances", {count}), static_cast<float>(cutoff),
          num_atoms};
}

LinearMap linear_map(const CheckedArguments& given, const LinearTensors& map, int64_t outputs, int64_t inputs) {
  return {given.get<float>(map.weight, "the weight of a linear map", {outputs, inputs}),
          given.get<float>(map.bias, "the bias of a linear map", {outputs}), static_cast<int>(inputs)};
}

struct EdgeTensors {
  Tensor pairs, distances, vectors, types, centers;
  LinearTensors radial;
  Tensor bonded, direction;
  LinearTensors out;
  double cutoff, scale;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, LinearTensors, Tensor, Tensor, LinearTensors, double,
                            double>;
};

std::tuple<Tensor, Tensor> gamd_edges_cuda(const EdgeTensors& from) {
  const CheckedArguments given(from.pairs, "pairs");
  const int64_t width = size_of(from.out.weight, "the weight of a linear map", 0, 2);
  const int64_t num_radial = size_of(from.centers, "centers", 0, 1);
  check_tile_width(width);
  check(num_radial >= 1 && num_radial <= (width > kMostRadial ? width : kMostRadial),
        "num_radial is " + std::to_string(num_radial) + ": give at most 64, or the width");
  GamdEdges in{};
  in.pairs = tile_pairs(given, from.pairs, from.distances, from.cutoff);
  const int64_t count = in.pairs.count;
  in.vectors = given.get<float>(from.vectors, "vectors", {count, 3});
  in.bonded = given.get_or_null<float>(from.bonded, "bonded", {kAny, width});
  in.bonded_rows = from.bonded.size(0);
  in.types = in.bonded == nullptr ? nullptr : given.get<int64_t>(from.types, "types", {count});
  in.centers = given.get<float>(from.centers, "centers", {num_radial});
  in.scale = static_cast<float>(from.scale);
  in.radial = linear_map(given, from.radial, width, num_radial);
  in.direction = given.get_or_null<float>(from.direction, "direction", {width, 3});
  in.out = linear_map(given, from.out, width, width);
  const DeviceGuard guard(from.pairs.get_device_index());
  const Tensor forward = floats_like(from.pairs, {count, width});
  const Tensor backward = floats_like(from.pairs, {in.direction != nullptr ? count : 0, width});
  in.forward = data<float>(forward);
  in.backward = in.direction != nullptr ? data<float>(backward) : nullptr;
  launch_tiles<TileEdges>(from.pairs, blocks_for(count, kTileRows), width, in);
  return {forward, backward};
}

struct MessageTensors {
  Tensor starts, entries, pairs, forward, backward, envelope, source, target, hidden;
  LinearTensors edge, gate;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, LinearTensors,
                            LinearTensors>;
};

Tensor gamd_messages_cuda(const MessageTensors& from) {
  const CheckedArguments given(from.pairs, "pairs");
  const int64_t* pairs = given.get<int64_t>(from.pairs, "pairs", {2, kAny});
  const int64_t count = from.pairs.size(1), atoms = size_of(from.hidden, "hidden", 0, 2), width = from.hidden.size(1);
  check_num_pairs(count);
  check_tile_width(width);
  GamdMessages in{};
  in.num_atoms = atoms;
  in.starts = given.get<int32_t>(from.starts, "starts", {atoms + 1});
  in.entries = given.get<int32_t>(from.entries, "entries", {2 * count});
  in.pairs = {count, pairs, nullptr, 0.f, atoms};
  in.forward = given.get<float>(from.forward, "forward", {count, width});
  const float* backward = given.get_or_null<float>(from.backward, "backward", {count, width});
  in.backward = backward == nullptr ? in.forward : backward;
  in.envelope = given.get<float>(from.envelope, "envelope", {count});
  in.source = given.get<float>(from.source, "source", {atoms, width});
  in.target = given.get<float>(from.target, "target", {atoms, width});
  in.hidden = given.get<float>(from.hidden, "hidden", {atoms, width});
  in.edge = linear_map(given, from.edge, width, width);
  in.gate = linear_map(given, from.gate, width, width);
  const DeviceGuard guard(from.pairs.get_device_index());
  const Tensor sums = floats_like(from.hidden, {atoms, width});
  in.sums = data<float>(sums);
  launch_tiles<TileMessages>(from.pairs, blocks_for(atoms, kAtomsOfTile), width, in);
  return sums;
}

struct StrengthTensors {
  Tensor pairs, distances, edges, envelope, total, left;
  LinearTensors edge, hidden;
  Tensor readout, readout_bias;
  double cutoff;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, LinearTensors, LinearTensors, Tensor, Tensor,
                            double>;
};

Tensor gamd_strengths_cuda(const StrengthTensors& from) {
  const CheckedArguments given(from.pairs, "pairs");
  const int64_t atoms = size_of(from.total, "total", 0, 2), width = from.total.size(1);
  check_tile_width(width);
  GamdStrengths in{};
  in.pairs = tile_pairs(given, from.pairs, from.distances, from.cutoff, atoms);
  const int64_t count = in.pairs.count;
  in.edges = given.get<float>(from.edges, "edges", {count, width});
  in.envelope = given.get<float>(from.envelope, "envelope", {count});
  in.total = given.get<float>(from.total, "total", {atoms, width});
  in.left = given.get<float>(from.left, "left", {atoms, width});
  in.edge = linear_map(given, from.edge, width, width);
  in.hidden = linear_map(given, from.hidden, width, width);
  in.readout = given.get<float>(from.readout, "readout", {1, width});
  in.readout_bias = given.get<float>(from.readout_bias, "the bias of readout", {1});
  const DeviceGuard guard(from.pairs.get_device_index());
  const Tensor strengths = floats_like(from.total, {count});
  in.strengths = data<float>(strengths);
  launch_tiles<TileStrengths>(from.pairs, blocks_for(count, kTileRows), width, in);
  return strengths;
}

}  // namespace

OPENMM_GNN_CUDA_OPERATORS(library) {
  implement<kGamdEdges, gamd_edges_cuda>(library);
  implement<kGamdMessages, gamd_messages_cuda>(library);
  implement<kGamdStrengths, gamd_strengths_cuda>(library);
}

}  // namespace openmm_gnn::cuda
