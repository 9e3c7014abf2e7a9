// The operator of ../network_forces.h on the GPU: its kernels in their order, and their memory.
//
// Nothing waits for the device and no shape depends on the data, so one CUDA graph holds the whole step, lists, charges and all.
// Pairs stay what the lists store, int32, with their kinds; a step writes 60 bytes of scratch for each slot of the near list and
// none for one of the far list. Errors of the lists are bits of their status, and all results are NaN.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#include <vector>

#include "base/cuda/device_arguments.h"
#include "base/cuda/sort_rows.h"
#include "mesh/cuda/mesh_charges.h"
#include "neighbors/cuda/lists.h"
#include "neighbors/cuda/pipeline.h"
#include "vector_gamd/cuda/atom_layers.h"
#include "vector_gamd/cuda/pair_sums.h"
#include "vector_gamd/cuda/stored_pairs.h"
#include "vector_gamd/force_arguments.h"
#include "vector_gamd/network_arguments.h"

namespace openmm_gnn::cuda {

namespace {

// ---- lists ----------------------------------------------------------------------------------------------------------

// A list that is right for the positions, with the kinds of its pairs.
template <typename T>
struct TypedSlots {
  System<T> system;
  StoredSlots<T> slots;
  int32_t* kinds;
  Tensor scratch;
};

template <typename T>
TypedSlots<T> typed_slots(const StreamLauncher& launcher, const ForceArguments& in, const ForceCall& call,
                          const TypedList& from) {
  const ListArguments list{in.positions, in.box_vectors, from.cutoff, from.skin, false, true, false, 0,
                           from.reference_positions, from.reference_box, from.pairs, from.shifts, from.status};
  const SkinState<T> state = skin_state<T>(list);
  check_num_pairs(state.capacity);
  int32_t* kinds = call.given.get<int32_t>(from.kinds, "kinds", {state.capacity});
  const System<T> system = system_of<T>(in.positions, in.box_vectors, from.cutoff + from.skin, false);
  Workspace<T> work;
  const Tensor scratch = make_workspace(in.positions, system, true, work);
  update_list(launcher, system, state, work);
  const StoredSlots<T> slots{state, work, call.atoms};
  launch_items(launcher, state.capacity, KindsOfStored<T>{slots, call.kinds, kinds});
  launch_items(launcher, 1, MarkKinds{state.status});
  return {system, slots, kinds, scratch};
}

template <typename T, class Pairs>
void add_forces(const StreamLauncher& launcher, const TypedSlots<T>& list, const Pairs& source, const FixedSums& sums) {
  using Add = AddPairForces<Pairs, int32_t>;
  const SkinState<T>& state = list.slots.state;
  launcher.launch(blocks_for(state.capacity, Add::kThreads * kPairsOfThread),
                  Add{state.stored_pairs, state.capacity, list.slots.num_atoms, source, sums});
}

// ---- the network ----------------------------------------------------------------------------------------------------

// What the network's passes write, in one piece of scratch memory.
struct NetworkMemory {
  float *vectors, *distances, *strengths, *incoming, *pair_vectors;
  RowSort<2, int32_t> sort;
  std::vector<LayerState> layers;
  DecoderState decoder;
  LayerGradients gradients;

  void lay_out(Carver& carver, const NetworkSizes& sizes, int64_t atoms, int64_t slots, bool conservative) {
    const auto rows = [&](int64_t per_atom) { return carver.take<float>(atoms * per_atom * sizes.width); };
    const int64_t width = sizes.width, derived = conservative ? slots : 0;
    vectors = carver.take<float>(3 * slots);
    distances = carver.take<float>(slots);
    strengths = carver.take<float>(slots);
    incoming = carver.take<float>(derived);
    pair_vectors = carver.take<float>(3 * derived);
    sort.starts = carver.take<int32_t>(atoms + 1);
    sort.entries = carver.take<int32_t>(2 * slots);
    sort.num_atoms = atoms;
    sort.num_pairs = slots;
    take_sort(carver, sort);
    layers.clear();
    for (int64_t l = 0; l < sizes.layers; ++l) {
      LayerState state{};
      state.width = width;
      state.scalars = rows(1);
      state.vectors = l > 0 ? rows(3) : nullptr;
      state.source = rows(3);
      state.target = rows(3);
      state.value = rows(1);
      state.probe = l > 0 ? rows(3) : nullptr;
      state.carried = l > 0 ? rows(3) : nullptr;
      state.sums = rows(1);
      state.vector_sums = rows(3);
      state.lengths = rows(3);
      state.outs = rows(3);
      state.length = rows(1);
      state.update = rows(1);
      state.change = rows(2);
      layers.push_back(state);
    }
    decoder = {width, rows(1), rows(3), rows(1), rows(1), rows(1), rows(3)};
    if (!conservative) return;
    gradients = {rows(1), rows(3), rows(1), rows(3), rows(3), rows(3), rows(1), rows(1),
                 rows(3), rows(3), rows(2), rows(1), rows(3), rows(3), rows(1)};
  }
};

// The passes over one list of near pairs.
class NetworkPass {
 public:
  NetworkPass(const StreamLauncher& launcher, const ForceNetworkWeights& weights, const NetworkMemory& memory,
              const PairRows& rows, const StoredEnds& ends, const int64_t* species, const NetworkSizes& sizes)
      : launcher_(launcher), weights_(weights), memory_(memory), rows_(rows), ends_(ends), species_(species),
        sizes_(sizes), atoms_(ends.num_atoms) {}

  void forth() const {
    const LayerState& first = memory_.layers[0];
    launch_items(launcher_, atoms_ * sizes_.width,
                 EmbedAtoms{weights_.embedding, species_, sizes_.species, sizes_.width, first.scalars});
    launcher_.launch(atom_blocks(atoms_), PrepareAtoms(weights_.layers[0], first, atoms_));
    sum_messages<false>(0);
    for (size_t l = 1; l < memory_.layers.size(); ++l) {
      launcher_.launch(atom_blocks(atoms_), RoundOfAtoms(two_layers(l), atoms_));
      sum_messages<true>(l);
    }
    launcher_.launch(atom_blocks(atoms_), DecodeAtoms(last_layer(), atoms_));
    launcher_.launch(pair_blocks(ends_.count, sizes_.width),
                     PairStrengthsKernel<StoredEnds>{ends_, strength_inputs(), memory_.strengths});
  }

  // From the gradient of each strength to those of the pairs' vectors.
  void back(float gradient) const {
    const LayerGradients& to = memory_.gradients;
    launch_items(launcher_, ends_.count, FillFloats{memory_.incoming, gradient});
    const RowStrengthGradients decoded{memory_.incoming, to.source,  to.target, to.probe, memory_.pair_vectors,
                                       nullptr,          nullptr,    nullptr};
    launcher_.launch(pair_blocks(ends_.count, sizes_.width),
                     PairStrengthGradientsKernel<StoredEnds>{ends_, strength_inputs(), decoded, false});
    launcher_.launch(row_blocks(atoms_, sizes_.width),
                     SumRowStrengthGradients<StoredEnds>{rows_, ends_, strength_inputs(), decoded});
    launcher_.launch(atom_blocks(atoms_), DecodeAtomsBack(last_layer(), to, atoms_));
    const RowMessageGradients messages{to.sums,  to.vector_sums, to.source,            to.target, to.value,
                                       to.probe, to.carried,     memory_.pair_vectors, nullptr,   nullptr};
    for (size_t l = memory_.layers.size(); l-- > 1;) {
      launcher_.launch(pair_blocks(ends_.count, sizes_.width),
                       PairMessageGradientsKernel<true, StoredEnds>{ends_, message_inputs_of(l), messages, true});
      launcher_.launch(row_blocks(atoms_, sizes_.width),
                       SumRowMessageGradients<true, StoredEnds>{rows_, ends_, message_inputs_of(l), messages});
      launcher_.launch(atom_blocks(atoms_), RoundOfAtomsBack(two_layers(l), to, atoms_));
    }
    launcher_.launch(pair_blocks(ends_.count, sizes_.width),
                     PairMessageGradientsKernel<false, StoredEnds>{ends_, message_inputs_of(0), messages, true});
  }

 private:
  template <bool kVectors>
  void sum_messages(size_t layer) const {
    const LayerState& state = memory_.layers[layer];
    launcher_.launch(row_blocks(atoms_, sizes_.width),
                     SumRowMessages<kVectors, StoredEnds>{rows_, ends_, message_inputs_of(layer), state.sums,
                                                          state.vector_sums});
  }

  RowMessages message_inputs_of(size_t layer) const {
    const LayerWeights& weights = weights_.layers[layer];
    const LayerState& state = memory_.layers[layer];
    return {atoms_,      sizes_.width,  state.source,  state.target,  state.value,
            state.probe, state.carried, weights.table, weights.mixing};
  }

  RowStrengths strength_inputs() const {
    const DecoderWeights& weights = weights_.decoder;
    return {atoms_,        sizes_.width, memory_.decoder.total, memory_.decoder.left, memory_.decoder.probe,
            weights.table, weights.mixing, weights.readout};
  }

  TwoLayers two_layers(size_t layer) const {
    return {weights_.layers[layer - 1], weights_.layers[layer], memory_.layers[layer - 1], memory_.layers[layer]};
  }

  LastLayer last_layer() const {
    return {weights_.layers.back(), memory_.layers.back(), weights_.decoder, memory_.decoder};
  }

  const StreamLauncher& launcher_;
  const ForceNetworkWeights& weights_;
  const NetworkMemory& memory_;
  PairRows rows_;
  StoredEnds ends_;
  const int64_t* species_;
  NetworkSizes sizes_;
  int64_t atoms_;
};

template <typename T>
void add_network(const StreamLauncher& launcher, const ForceArguments& in, const ForceCall& call,
                 const TypedSlots<T>& near, const FixedSums& sums) {
  const ForceNetworkWeights weights = call.network(in);
  const SkinState<T>& state = near.slots.state;
  NetworkMemory memory{};
  const Tensor scratch = scratch_of(in.positions, [&](Carver& carver) {
    memory.lay_out(carver, call.sizes, call.atoms, state.capacity, in.conservative);
  });
  const float far = static_cast<float>(2 * (in.near.cutoff + in.near.skin)), cutoff = static_cast<float>(in.near.cutoff);
  launch_items(launcher, state.capacity, EdgesOfStored<T>{near.slots, far, memory.vectors, memory.distances});
  memory.sort.pairs = state.stored_pairs;
  memory.sort.others = state.stored_pairs + state.capacity;
  memory.sort.distances = memory.distances;
  memory.sort.cutoff = cutoff;
  sort_rows(launcher, memory.sort);
  const StoredEnds ends{state.capacity,   state.stored_pairs, near.kinds,       memory.vectors,
                        memory.distances, call.atoms,         call.sizes.kinds};
  const NetworkPass pass(launcher, weights, memory, {memory.sort.starts, memory.sort.entries}, ends, call.kinds.species,
                         call.sizes);
  const float scale = static_cast<float>(in.scale);
  pass.forth();
  if (in.conservative) pass.back(scale);
  add_forces(launcher, near,
             NetworkPairs{memory.vectors, memory.distances, memory.strengths,
                          in.conservative ? memory.pair_vectors : nullptr, cutoff, scale},
             sums);
}

// ---- the pair term and charges --------------------------------------------------------------------------------------

template <typename T>
void add_pair_term(const StreamLauncher& launcher, const ForceArguments& in, const ForceCall& call,
                   const TypedSlots<T>& far, const FixedSums& sums) {
  const int64_t intervals = call.intervals(in);
  const double inverse_spacing = static_cast<double>(intervals) / (in.far.cutoff - in.start);
  add_forces(launcher, far,
             PolynomialPairs<T>{far.slots, far.kinds, call.sizes.kinds, intervals, call.pair_table, in.start,
                                inverse_spacing, in.far.cutoff},
             sums);
}

MeshTransform transform_of(const Tensor& tensor) {
  return {static_cast<float*>(tensor.data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

template <typename T>
void add_charges(const StreamLauncher& launcher, const ForceArguments& in, const ForceCall& call,
                 const TypedSlots<T>& near, const FixedSums& sums) {
  check(in.box_vectors.size(0) == 3, "this model has charges, which need a periodic box: simulate in one");
  check(in.charge_width > 0 && in.charge_width < 1e18,
        "width is " + std::to_string(in.charge_width) + ": give a length above 0");
  const MeshSizes sizes{in.size_a, in.size_b, in.size_c};
  for (int axis = 0; axis < 3; ++axis) {
    check(sizes.of(axis) >= 1 && sizes.of(axis) <= 4096,
          "a grid of " + std::to_string(sizes.a) + " x " + std::to_string(sizes.b) + " x " + std::to_string(sizes.c) +
              " points: give 1 to 4096 along each vector");
  }
  const Plan<T>* plan = near.slots.work.plan;
  const MeshAtoms<T> atoms{near.system,  plan,          call.kinds.species, call.charges, in.num_species, sizes};
  int64_t* grid = nullptr;
  float* factors = nullptr;
  const Tensor scratch = scratch_of(in.positions, [&](Carver& carver) {
    grid = carver.take<int64_t>(sizes.points());
    factors = carver.take<float>(sizes.a + sizes.b + sizes.c);
  });
  const Tensor values = floats_like(in.positions, {sizes.a, sizes.b, sizes.c});
  const Tensor waves = empty(in.positions, {sizes.a, sizes.b, sizes.c}, aoti_torch_dtype_complex64());
  launcher.clear(grid, static_cast<size_t>(sizes.points()) * sizeof(int64_t));
  launch_items(launcher, kMeshOrder * call.atoms, SpreadCharges<T>{atoms, grid, sums.invalid});
  launch_items(launcher, sizes.points(), GridToFloats{grid, data<float>(values)});
  launch_items(launcher, sizes.a + sizes.b + sizes.c,
               MeshFactors<T>{plan, sizes, in.charge_width, factors, sums.invalid});
  const int64_t axes[3] = {0, 1, 2};
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_cuda__fft_r2c(values.get(), axes, 3, 0, 1, &handle));
  const Tensor half(handle);
  launch_items(launcher, sizes.points(),
               MeshWaves<T>{plan, sizes, in.charge_width, factors, transform_of(half), static_cast<float*>(waves.data_ptr())});
  TORCH_ERROR_CODE_CHECK(aoti_torch_cuda__fft_c2c(waves.get(), axes, 3, 0, 0, &handle));
  const Tensor potential(handle);
  launcher.launch(blocks_for(call.atoms, GatherCharges<T>::kThreads),
                  GatherCharges<T>{atoms, transform_of(potential), sums});
}

// ---- the operator ---------------------------------------------------------------------------------------------------

template <typename T>
std::tuple<Tensor, Tensor> network_forces(const ForceArguments& in) {
  const ForceCall call(in);
  check_channels(in.width, kPairThreads);
  const StreamLauncher launcher = launcher_of(in.positions);
  FixedSums sums{};
  const size_t numbers = static_cast<size_t>(3 * call.atoms + 1) * sizeof(int64_t);
  const Tensor scratch = scratch_of(in.positions, [&](Carver& carver) {
    sums.forces = carver.take<int64_t>(3 * call.atoms + 1);
    sums.invalid = carver.take<int32_t>(1);
  });
  sums.energy = sums.forces + 3 * call.atoms;
  launcher.clear(sums.forces, numbers);
  launcher.clear(sums.invalid, sizeof(int32_t));
  const TypedSlots<T> near = typed_slots<T>(launcher, in, call, in.near);
  add_network(launcher, in, call, near, sums);
  const int64_t* far_status = nullptr;
  if (call.pair_table != nullptr) {
    const TypedSlots<T> far = typed_slots<T>(launcher, in, call, in.far);
    far_status = far.slots.state.status;
    add_pair_term(launcher, in, call, far, sums);
  }
  if (call.charges != nullptr) add_charges(launcher, in, call, near, sums);
  const int32_t dtype = dtype_of(in.positions);
  const std::tuple<Tensor, Tensor> results{empty(in.positions, {}, dtype), empty(in.positions, {call.atoms, 3}, dtype)};
  launch_items(launcher, 3 * call.atoms + 1,
               WriteForces<T>{sums, near.slots.state.status, far_status, 3 * call.atoms, in.conservative,
                              data<T>(std::get<1>(results)), data<T>(std::get<0>(results))});
  return results;
}

std::tuple<Tensor, Tensor> vector_gamd_forces_cuda(const ForceArguments& in) {
  check_forces(in);
  const DeviceGuard guard(in.positions.get_device_index());
  return is_float32(in.positions) ? network_forces<float>(in) : network_forces<double>(in);
}

}  // namespace

OPENMM_GNN_CUDA_OPERATORS(library) {
  implement<kVectorGamdForces, vector_gamd_forces_cuda>(library);
}

}  // namespace openmm_gnn::cuda
