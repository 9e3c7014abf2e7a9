// The operators of network.h: checks, and the order of the steps.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/cpu/sums.h"
#include "encoders/arguments.h"
#include "encoders/cpu/messages.h"
#include "encoders/cpu/network.h"
#include "encoders/cpu/network_operators.h"

namespace openmm_gnn {

namespace {

using Arrays = std::vector<float*>;

// An edge takes 0.3 microseconds of a layer, an atom 3, and to start a thread 30.
constexpr int64_t kEdgesPerThread = 500, kAtomsPerThread = 40;

constexpr double kPi = 3.14159265358979323846;
// graph/radial_basis.py `distances_in_knots`.
constexpr double kDecaying = 513.0, kEven = 256.0;

// What the loops take of edges, from their vectors and lengths, in an order in which edges of the same length follow each
// other: an atom's own edges, then each edge and the one back. Of these a filter is read once.
struct Geometry {
  std::vector<int64_t> order, receivers, senders;  // first the edge's number
  std::vector<float> directions, envelope;
  std::vector<double> places;

  Geometry(const int64_t* index, const float* vectors, const float* distances, int64_t count, double cutoff)
      : receivers(static_cast<size_t>(count)), senders(receivers), directions(3 * receivers.size()),
        envelope(receivers.size()), places(receivers.size()) {
    order_edges(index, index + count, distances, count);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t e = order[k];
      const double d = distances[e];
      const float inverse = d > 0 ? 1.f / distances[e] : 1.f;
      receivers[k] = index[count + e], senders[k] = index[e];
      for (int64_t c = 0; c < 3; ++c) directions[3 * k + c] = vectors[3 * e + c] * inverse;
      if (k > 0 && distances[e] == distances[order[k - 1]]) {
        envelope[k] = envelope[k - 1], places[k] = places[k - 1];
        continue;
      }
      envelope[k] = d < cutoff ? static_cast<float>(0.5 * (std::cos(kPi * d / cutoff) + 1.0)) : 0.f;
      places[k] = (1.0 - std::exp(-5.0 * d / cutoff)) * (kDecaying / (1.0 - std::exp(-5.0))) + d * (kEven / cutoff);
    }
  }

 private:
  // Edges whose receivers do not ascend stay in their order.
  void order_edges(const int64_t* from, const int64_t* to, const float* distances, int64_t count) {
    order.reserve(static_cast<size_t>(count));
    const bool ascend = std::is_sorted(to, to + count);
    std::vector<bool> taken(static_cast<size_t>(count));
    for (int64_t e = 0; ascend && e < count; ++e) {
      if (from[e] == to[e]) order.push_back(e), taken[e] = true;
    }
    for (int64_t e = 0; e < count; ++e) {
      if (taken[e]) continue;
      order.push_back(e), taken[e] = true;
      if (!ascend) continue;
      for (int64_t back = std::lower_bound(to, to + count, from[e]) - to; back < count && to[back] == from[e]; ++back) {
        if (from[back] != to[e] || distances[back] != distances[e] || taken[back]) continue;
        order.push_back(back), taken[back] = true;
        break;
      }
    }
  }
};

// Rows of a matrix without those that came before, and for each row which of them it is. Atoms of an element begin with the
// same scalars. No further row is sought beyond kMostSought.
struct DistinctRows {
  static constexpr int64_t kMostSought = 32;
  std::vector<float> rows;
  std::vector<int64_t> places;
  int64_t count = 0;

  DistinctRows(const float* given, int64_t num_rows, int64_t width) {
    const size_t bytes = sizeof(float) * static_cast<size_t>(width);
    for (const float* row = given; row < given + num_rows * width; row += width) {
      int64_t place = 0;
      const int64_t sought = std::min(count, kMostSought);
      while (place < sought && std::memcmp(rows.data() + width * place, row, bytes) != 0) ++place;
      if (place == sought) {
        place = count++;
        rows.insert(rows.end(), row, row + width);
      }
      places.push_back(place);
    }
  }
};

struct Network {
  const NetworkArguments& arguments;
  CheckedArguments given;
  int64_t atoms, width, layers, num_edges;
  const int64_t* index;
  const float *vectors, *distances, *weights, *tables, *norm;
  Geometry geometry;

  explicit Network(const NetworkArguments& in)
      : arguments(in), given(in.index, "edge_index"), atoms(size_of(in.embedded, "scalars", 0, 2)),
        width(in.embedded.size(1)), layers(size_of(in.weights, "weights", 0, 2)),
        num_edges(size_of(in.index, "edge_index", 1, 2)), index(given.get<int64_t>(in.index, "edge_index", {2, num_edges})),
        vectors(given.get<float>(in.vectors, "edge_vectors", {num_edges, 3})),
        distances(given.get<float>(in.distances, "edge_distances", {num_edges})),
        weights(given.get<float>(in.weights, "weights", {layers, AttentionWeights::count(width)})),
        tables(given.get<float>(in.tables, "tables", {layers, kAny, 2, 4 * width})),
        norm(given.get<float>(in.norm, "norm", {2, width})), geometry(index, vectors, distances, num_edges, in.cutoff) {
    check_width(width, in.head_width);
    check(in.tables.size(1) >= 2, "a filter table needs 2 knots");
    check(in.cutoff > 0 && in.cutoff < 1e18, "cutoff is " + std::to_string(in.cutoff) + ": give a finite length above 0");
    given.get<float>(in.embedded, "scalars", {atoms, width});
    check_atoms(edge_list(), atoms);
  }

  EncoderEdges edge_list() const {
    return {num_edges,
            geometry.receivers.data(),
            geometry.senders.data(),
            geometry.directions.data(),
            geometry.envelope.data(),
            geometry.places.data()};
  }

  AttentionWeights weights_of(int64_t layer) const {
    return {width, weights + layer * AttentionWeights::count(width)};
  }

  AttentionInputs inputs(int64_t layer, const AttentionState& state) const {
    const int64_t knots = arguments.tables.size(1), size = 8 * knots * width;
    return {width, arguments.head_width, state.node(), state.vectors(), {tables + layer * size, knots, 4 * width}};
  }

  // Numbers of the states of all layers, and of the scalars behind the last one.
  int64_t kept_size() const { return layers * AttentionState::count(atoms, width) + atoms * width; }

  // Calls body(begin, end) on parts of [0, rows), a row for an atom.
  template <typename Body>
  void for_rows(int64_t rows, const Body& body) const {
    for_parts(threads_for(arguments.num_threads, rows, kAtomsPerThread), rows,
              [&](int, int64_t begin, int64_t end) { body(begin, end); });
  }
};

// States of all layers, then the scalars behind the last one.
AttentionState state_of(const Tensor& kept, int64_t layer, int64_t atoms, int64_t width) {
  return {atoms, width, data<float>(kept) + layer * AttentionState::count(atoms, width)};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> attention_network_cpu(const NetworkArguments& arguments) {
  const Network net(arguments);
  const Tensor& embedded = arguments.embedded;
  const AttentionNetworkKernels& kernels = attention_network_kernels();
  const int64_t atoms = net.atoms, width = net.width;
  const Tensor kept = floats_like(embedded, {net.kept_size()});
  const Tensor scalars = floats_like(embedded, {atoms, width});
  Tensor vectors = floats_like(embedded, {atoms, 3, width});
  if (atoms == 0) return {scalars, vectors, kept};
  std::memset(data<float>(vectors), 0, sizeof(float) * static_cast<size_t>(3 * atoms * width));
  std::vector<float> normalized(static_cast<size_t>(atoms * width));
  std::memcpy(state_of(kept, 0, atoms, width).scalars(), data<float>(embedded), normalized.size() * sizeof(float));
  const EncoderEdges edges = net.edge_list();
  for (int64_t layer = 0; layer < net.layers; ++layer) {
    const AttentionState state = state_of(kept, layer, atoms, width);
    const AttentionWeights weights = net.weights_of(layer);
    std::memcpy(state.vectors(), data<float>(vectors), sizeof(float) * static_cast<size_t>(3 * atoms * width));
    const auto project = [&](const float* scalars_in, int64_t begin, int64_t end, float* node) {
      kernels.normalize(scalars_in, begin, end, width, weights.norm(), normalized.data());
      kernels.multiply(normalized.data(), begin, end, width, weights.node(), weights.node_bias(), 5 * width, node);
    };
    if (layer == 0) {
      const DistinctRows first(state.scalars(), atoms, width);
      std::vector<float> node(static_cast<size_t>(5 * width * first.count));
      net.for_rows(first.count, [&](int64_t begin, int64_t end) { project(first.rows.data(), begin, end, node.data()); });
      const size_t bytes = sizeof(float) * static_cast<size_t>(5 * width);
      for (int64_t i = 0; i < atoms; ++i) {
        std::memcpy(state.node() + 5 * width * i, node.data() + 5 * width * first.places[i], bytes);
      }
      std::memset(state.mixed(), 0, sizeof(float) * static_cast<size_t>(9 * width * atoms));  // the first vectors are zero
    } else {
      net.for_rows(atoms, [&](int64_t begin, int64_t end) {
        project(state.scalars(), begin, end, state.node());
        kernels.multiply(state.vectors(), 3 * begin, 3 * end, width, weights.mixing(), nullptr, 3 * width,
                         state.mixed());
      });
    }
    Sums sums;
    const Tensor scalar_sums = sums.add(embedded, {atoms, width});
    vectors = sums.add(embedded, {atoms, 3, width});
    const AttentionInputs in = net.inputs(layer, state);
    sums.run(
        arguments.num_threads, edges.count,
        [&](int64_t begin, int64_t end, const Arrays& out) {
          encoder_kernels().attention(edges, begin, end, in, out[0], out[1]);
        },
        kEdgesPerThread);
    float* next = state_of(kept, layer + 1, atoms, width).scalars();
    net.for_rows(atoms, [&](int64_t begin, int64_t end) {
      kernels.multiply(data<float>(scalar_sums), begin, end, width, weights.out(), weights.out_bias(), 3 * width,
                       state.gates());
      kernels.update(state, begin, end, next, data<float>(vectors));
    });
  }
  kernels.normalize(state_of(kept, net.layers, atoms, width).scalars(), 0, atoms, width, net.norm,
                    data<float>(scalars));
  return {scalars, vectors, kept};
}

std::vector<std::tuple<Tensor, Tensor>> attention_network_directions(const NetworkArguments& arguments, const Tensor& kept,
                                                                     int64_t directions, const float* from_scalars,
                                                                     const float* from_vectors) {
  const Network net(arguments);
  const Tensor& embedded = arguments.embedded;
  const AttentionNetworkKernels& kernels = attention_network_kernels();
  const int64_t atoms = net.atoms, width = net.width, count = net.num_edges, rows = directions * atoms;
  net.given.get<float>(kept, "kept", {net.kept_size()});
  const auto size = static_cast<size_t>(rows * width), edge_count = static_cast<size_t>(directions * count);
  std::vector<float> scalars(size, 0.f), vectors(from_vectors, from_vectors + 3 * size), mixed(9 * size), gates(3 * size),
      sums_back(size), mixed_back(3 * size), normalized(size);
  std::vector<float> to_directions(3 * edge_count), envelope(edge_count), places(edge_count), total(5 * edge_count, 0.f);
  // Calls body(direction, begin, end) on the atoms among rows [begin, end), where each direction has a row for each atom.
  const auto for_directions = [&](int64_t begin, int64_t end, const auto& body) {
    for (int64_t m = begin / std::max<int64_t>(atoms, 1); m * atoms < end; ++m) {
      body(m, std::max(begin - m * atoms, int64_t{0}), std::min(end - m * atoms, atoms));
    }
  };
  const auto normalize_back = [&](int64_t begin, int64_t end, const float* before, const float* norm, const float* from) {
    for_directions(begin, end, [&](int64_t m, int64_t first, int64_t last) {
      kernels.normalize_back(before, first, last, width, norm, from + m * atoms * width, scalars.data() + m * atoms * width);
    });
  };
  if (atoms > 0) normalize_back(0, rows, state_of(kept, net.layers, atoms, width).scalars(), net.norm, from_scalars);
  const EncoderEdges edges = net.edge_list();
  for (int64_t layer = net.layers - 1; layer >= 0 && atoms > 0; --layer) {
    const AttentionState state = state_of(kept, layer, atoms, width);
    const AttentionWeights weights = net.weights_of(layer);
    net.for_rows(rows, [&](int64_t begin, int64_t end) {
      for_directions(begin, end, [&](int64_t m, int64_t first, int64_t last) {
        const int64_t at = m * atoms * width;
        kernels.update_back(state, first, last, scalars.data() + at, vectors.data() + 3 * at, mixed.data() + 9 * at,
                            gates.data() + 3 * at);
      });
      kernels.multiply(gates.data(), begin, end, 3 * width, weights.out_back(), nullptr, width, sums_back.data());
      if (layer == 0) return;  // what comes in is fixed
      kernels.multiply(mixed.data(), 3 * begin, 3 * end, 3 * width, weights.mixing_back(), nullptr, width,
                       mixed_back.data());
    });
    Sums sums;
    // Rows of atoms, however many directions each has: they decide the number of threads, and that the last digits.
    const Tensor node = sums.add(embedded, {atoms, directions * 5 * width});
    const Tensor carried = sums.add(embedded, {atoms, directions * 3 * width});
    const AttentionInputs in = net.inputs(layer, state);
    sums.run(
        arguments.num_threads, count,
        [&](int64_t begin, int64_t end, const Arrays& out) {
          const bool wanted = layer > 0;
          const AttentionGradients gradients{sums_back.data(), vectors.data(), wanted ? out[0] : nullptr,
                                             wanted ? out[1] : nullptr, nullptr, to_directions.data(), envelope.data(),
                                             places.data()};
          encoder_kernels().attention_directions(edges, begin, end, in, atoms, directions, gradients);
        },
        kEdgesPerThread);
    for (size_t k = 0; k < 3 * edge_count; ++k) total[k] += to_directions[k];
    for (size_t e = 0; e < edge_count; ++e) total[3 * edge_count + e] += envelope[e], total[4 * edge_count + e] += places[e];
    if (layer == 0) break;
    net.for_rows(rows, [&](int64_t begin, int64_t end) {
      kernels.multiply(data<float>(node), begin, end, 5 * width, weights.node_back(), nullptr, width,
                       normalized.data());
      normalize_back(begin, end, state.scalars(), weights.norm(), normalized.data());
      const float* sent = data<float>(carried);
      for (int64_t k = 3 * width * begin; k < 3 * width * end; ++k) vectors[k] += mixed_back[k] + sent[k];
    });
  }
  const double cutoff = arguments.cutoff, pi = kPi / cutoff, fall = 5.0 / cutoff;
  std::vector<std::tuple<Tensor, Tensor>> found;
  for (int64_t m = 0; m < directions; ++m) {
    const Tensor to_vectors = floats_like(embedded, {count, 3}), to_distances = floats_like(embedded, {count});
    float *by_vectors = data<float>(to_vectors), *by_distances = data<float>(to_distances);
    const float *of_vectors = total.data() + 3 * m * count, *of_envelopes = total.data() + 3 * edge_count + m * count;
    const float* of_places = of_envelopes + edge_count;
    double of_envelope = 0, knots = 0;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t e = net.geometry.order[k];
      const double d = net.distances[e], inverse = d > 0 ? 1.0 / d : 1.0;
      double along = 0;
      for (int64_t c = 0; c < 3; ++c) {
        by_vectors[3 * e + c] = static_cast<float>(of_vectors[3 * k + c] * inverse);
        along += static_cast<double>(of_vectors[3 * k + c]) * net.vectors[3 * e + c];
      }
      if (k == 0 || net.geometry.places[k] != net.geometry.places[k - 1]) {
        of_envelope = d < cutoff ? -0.5 * pi * std::sin(pi * d) : 0.0;
        knots = kDecaying * fall / (1.0 - std::exp(-5.0)) * std::exp(-fall * d) + kEven / cutoff;
      }
      const double of_direction = d > 0 ? -along * inverse * inverse : 0.0;
      by_distances[e] = static_cast<float>(of_direction + of_envelope * of_envelopes[k] + knots * of_places[k]);
    }
    found.emplace_back(to_vectors, to_distances);
  }
  return found;
}

std::tuple<Tensor, Tensor> attention_network_backward_cpu(const NetworkArguments& arguments, const Tensor& kept,
                                                          const Tensor& scalar_gradient,
                                                          const Tensor& vector_gradient) {
  const CheckedArguments given(arguments.index, "edge_index");
  const int64_t atoms = size_of(arguments.embedded, "scalars", 0, 2), width = arguments.embedded.size(1);
  const float* from_scalars = given.get<float>(scalar_gradient, "the gradient of scalars", {atoms, width});
  const float* from_vectors = given.get<float>(vector_gradient, "the gradient of vectors", {atoms, 3, width});
  return attention_network_directions(arguments, kept, 1, from_scalars, from_vectors)[0];
}

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kAttentionNetwork, attention_network_cpu>(library);
  implement<kAttentionNetworkBackward, attention_network_backward_cpu>(library);
}

}  // namespace openmm_gnn
