#include "vector_gamd/cpu/force_network.h"

#include <algorithm>

#include "base/cpu/sums.h"

namespace openmm_gnn {

namespace {

// An atom takes 3 microseconds of a layer, and to start a thread 30.
constexpr int64_t kAtomsPerThread = 100;

// The network's states, layer by layer, and the steps between them.
class Evaluation {
 public:
  Evaluation(const ForceNetwork& net, Arrays& arrays) : net_(net), arrays_(arrays), width_(net.sizes.width) {
    arrays_.start();
    first_round();
    for (size_t l = 1; l < net_.weights.layers.size(); ++l) round(l);
    decode();
  }

  void strengths(float* result) const {
    std::fill(result, result + net_.edges.count, 0.f);
    for_pairs(net_.num_threads, net_.edges.count, [&](int64_t begin, int64_t end) {
      force_kernels().strengths(net_.edges, begin, end, decoder_inputs(), result);
    });
  }

  double energy_and_gradients(float scale, float* pair_vectors) {
    make_gradients();
    std::fill(pair_vectors, pair_vectors + 3 * net_.edges.count, 0.f);
    const double energy = decode_back(scale, pair_vectors);
    for (size_t l = net_.weights.layers.size(); l-- > 1;) round_back(l, pair_vectors);
    first_round_back(pair_vectors);
    return energy;
  }

 private:
  float* rows(int64_t per_atom) { return arrays_.take(net_.atoms * per_atom * width_); }

  // Calls body(begin, end) on parts of the atoms.
  template <typename Body>
  void for_atoms(const Body& body) const {
    for_parts(threads_for(net_.num_threads, net_.atoms, kAtomsPerThread), net_.atoms,
              [&](int, int64_t begin, int64_t end) { body(begin, end); });
  }

  // Calls body(begin, end, arrays) on parts of the pairs; `arrays` are sums of that many rows for each atom.
  struct Sum {
    float* array;
    int64_t per_atom;
  };
  template <typename Body>
  void sum_over_pairs(std::initializer_list<Sum> wanted, const Body& body) const {
    Sums sums;
    for (const Sum& one : wanted) sums.add(one.array, net_.atoms, net_.atoms * one.per_atom * width_);
    sums.run(net_.num_threads, net_.edges.count, body);
  }

  LayerState new_state(float* scalars, float* vectors) {
    return {width_,   scalars, vectors, nullptr, nullptr, nullptr, nullptr, nullptr,
            rows(1),  rows(3), rows(3), rows(3), rows(1), rows(1), rows(2)};
  }

  // Features of the first layer's atoms are those of their species.
  void first_round() {
    const LayerWeights& weights = net_.weights.layers[0];
    const int64_t species = net_.sizes.species, wide = 3 * width_;
    LayerState few{};
    few.width = width_;
    few.scalars = arrays_.take(species * width_);
    few.source = arrays_.take(species * wide);
    few.target = arrays_.take(species * wide);
    few.value = arrays_.take(species * width_);
    few.length = arrays_.take(species * width_);
    few.update = arrays_.take(species * width_);
    std::copy(net_.weights.embedding, net_.weights.embedding + species * width_, few.scalars);
    force_kernels().prepare(weights, few, 0, species);
    float* constants = arrays_.take(species * species * wide);
    for (int64_t to = 0; to < species; ++to) {
      for (int64_t from = 0; from < species; ++from) {
        float* row = constants + (to * species + from) * wide;
        for (int64_t c = 0; c < wide; ++c) row[c] = few.source[from * wide + c] + few.target[to * wide + c];
      }
    }
    first_ = {width_, species, net_.species, constants, few.value, weights.table};

    states_.push_back(new_state(rows(1), nullptr));
    const LayerState& state = states_.back();
    for (int64_t a = 0; a < net_.atoms; ++a) {
      const int64_t from = net_.species[a] * width_;
      std::copy(few.scalars + from, few.scalars + from + width_, state.scalars + a * width_);
      std::copy(few.update + from, few.update + from + width_, state.update + a * width_);
    }
    sum_over_pairs({{state.sums, 1}, {state.vector_sums, 3}}, [&](int64_t begin, int64_t end, const auto& out) {
      force_kernels().first_messages(net_.edges, begin, end, first_, out[0], out[1]);
    });
  }

  RowMessages inputs(size_t layer) const {
    const LayerWeights& weights = net_.weights.layers[layer];
    const LayerState& state = states_[layer];
    return {net_.atoms,  width_,        state.source,  state.target,  state.value,
            state.probe, state.carried, weights.table, weights.mixing};
  }

  // The end of the layer before, and the messages of this one.
  void round(size_t layer) {
    float *scalars = rows(1), *vectors = rows(3);
    LayerState state = new_state(scalars, vectors);
    state.source = rows(3);
    state.target = rows(3);
    state.value = rows(1);
    state.probe = rows(3);
    state.carried = rows(3);
    states_.push_back(state);
    for_atoms([&](int64_t begin, int64_t end) {
      force_kernels().update(net_.weights.layers[layer - 1], states_[layer - 1], begin, end, scalars, vectors);
      force_kernels().prepare(net_.weights.layers[layer], state, begin, end);
    });
    sum_over_pairs({{state.sums, 1}, {state.vector_sums, 3}}, [&](int64_t begin, int64_t end, const auto& out) {
      force_kernels().messages(net_.edges, begin, end, inputs(layer), out[0], out[1]);
    });
  }

  void decode() {
    decoder_ = {width_, rows(1), rows(3), rows(1), rows(1), rows(1), rows(3)};
    for_atoms([&](int64_t begin, int64_t end) {
      force_kernels().update(net_.weights.layers.back(), states_.back(), begin, end, decoder_.scalars, decoder_.vectors);
      force_kernels().decode(net_.weights.decoder, decoder_, begin, end);
    });
  }

  RowStrengths decoder_inputs() const {
    const DecoderWeights& weights = net_.weights.decoder;
    return {net_.atoms,     width_,        decoder_.total, decoder_.left,
            decoder_.probe, weights.table, weights.mixing, weights.readout};
  }

  void make_gradients() {
    gradients_ = {rows(1), rows(3), rows(1), rows(3), rows(3), rows(3), rows(1), rows(1),
                  rows(3), rows(3), rows(2), rows(1), rows(3), rows(3), rows(1)};
  }

  double decode_back(float scale, float* pair_vectors) {
    const LayerGradients& to = gradients_;
    float* incoming = arrays_.take(net_.edges.count);
    std::fill(incoming, incoming + net_.edges.count, scale);
    std::vector<std::pair<int64_t, double>> parts;
    std::mutex lock;
    sum_over_pairs({{to.source, 1}, {to.target, 1}, {to.probe, 3}}, [&](int64_t begin, int64_t end, const auto& out) {
      const RowStrengthGradients gradients{incoming, out[0], out[1], out[2], pair_vectors, nullptr, nullptr, nullptr};
      const double part = force_kernels().energy(net_.edges, begin, end, decoder_inputs(), gradients);
      const std::lock_guard<std::mutex> guard(lock);
      parts.emplace_back(begin, part);
    });
    std::sort(parts.begin(), parts.end());
    double energy = 0;
    for (const auto& part : parts) energy += part.second;
    for_atoms([&](int64_t begin, int64_t end) {
      force_kernels().decode_back(net_.weights.decoder, decoder_, begin, end, to);
      force_kernels().update_back(net_.weights.layers.back(), states_.back(), begin, end, to);
    });
    return energy;
  }

  // The messages of this layer, and the end of the one before.
  void round_back(size_t layer, float* pair_vectors) {
    const LayerGradients& to = gradients_;
    sum_over_pairs({{to.source, 3}, {to.target, 3}, {to.value, 1}, {to.probe, 3}, {to.carried, 3}},
                   [&](int64_t begin, int64_t end, const auto& out) {
                     const RowMessageGradients gradients{to.sums, to.vector_sums, out[0], out[1],  out[2], out[3],
                                                         out[4],  pair_vectors,   nullptr, nullptr};
                     force_kernels().message_gradients(net_.edges, begin, end, inputs(layer), gradients);
                   });
    for_atoms([&](int64_t begin, int64_t end) {
      force_kernels().prepare_back(net_.weights.layers[layer], states_[layer], begin, end, to);
      force_kernels().update_back(net_.weights.layers[layer - 1], states_[layer - 1], begin, end, to);
    });
  }

  void first_round_back(float* pair_vectors) const {
    for_pairs(net_.num_threads, net_.edges.count, [&](int64_t begin, int64_t end) {
      force_kernels().first_gradients(net_.edges, begin, end, first_, gradients_.sums, gradients_.vector_sums,
                                      pair_vectors);
    });
  }

  const ForceNetwork& net_;
  Arrays& arrays_;
  int64_t width_;
  FirstMessages first_{};
  std::vector<LayerState> states_;
  DecoderState decoder_{};
  LayerGradients gradients_{};
};

}  // namespace

double network_energy(const ForceNetwork& net, float scale, Arrays& arrays, float* pair_vectors) {
  return Evaluation(net, arrays).energy_and_gradients(scale, pair_vectors);
}

void network_strengths(const ForceNetwork& net, Arrays& arrays, float* strengths) {
  Evaluation(net, arrays).strengths(strengths);
}

}  // namespace openmm_gnn
