// The operators of attention_network.h: checks, the order of the steps, schemas and dispatch.
#include <cmath>
#include <cstring>
#include <vector>

#include "base/tensor_access.h"
#include "encoders/cpu/attention_network.h"
#include "encoders/cpu/encoder_checks.h"
#include "encoders/cpu/encoder_gradients.h"
#include "base/cpu/sums.h"

namespace openmm_gnn {

namespace {

constexpr double kPi = 3.14159265358979323846;
// graph/filter_table.py `filter_places`.
constexpr double kDecaying = 513.0, kEven = 256.0;

// What the loops take of an edge, from its vector and length.
struct Geometry {
  std::vector<float> directions, envelope;
  std::vector<double> places;

  Geometry(const float* vectors, const float* distances, int64_t count, double cutoff)
      : directions(static_cast<size_t>(3 * count)), envelope(static_cast<size_t>(count)),
        places(static_cast<size_t>(count)) {
    for (int64_t e = 0; e < count; ++e) {
      const double d = distances[e];
      const float inverse = d > 0 ? 1.f / distances[e] : 1.f;
      for (int64_t k = 3 * e; k < 3 * e + 3; ++k) directions[k] = vectors[k] * inverse;
      envelope[e] = d < cutoff ? static_cast<float>(0.5 * (std::cos(kPi * d / cutoff) + 1.0)) : 0.f;
      places[e] = (1.0 - std::exp(-5.0 * d / cutoff)) * (kDecaying / (1.0 - std::exp(-5.0))) + d * (kEven / cutoff);
    }
  }
};

struct Network {
  Tensor index, vectors, distances, weights, tables, norm;
  double cutoff;
  int64_t head_width, threads, atoms, width, layers, edges;
  Geometry geometry;

  // Stack: index, vectors, distances, embedded, weights, tables, norm; then numbers from `numbers` on.
  Network(StableIValue* stack, const Tensor& embedded, int numbers)
      : index(pop_tensor(stack[0])), vectors(pop_tensor(stack[1])), distances(pop_tensor(stack[2])),
        weights(pop_tensor(stack[4])), tables(pop_tensor(stack[5])), norm(pop_tensor(stack[6])),
        cutoff(pop_float(stack[numbers])), head_width(pop_int(stack[numbers + 1])),
        threads(pop_int(stack[numbers + 2])), atoms(embedded.size(0)), width(embedded.size(1)),
        layers(weights.size(0)), edges(index.size(1)),
        geometry((check_floats(vectors, "edge_vectors", {edges, 3}),
                  check_floats(distances, "edge_distances", {edges}), data<float>(vectors)),
                 data<float>(distances), edges, cutoff) {
    check_width(width, head_width);
    check_floats(embedded, "scalars", {atoms, width});
    check_floats(weights, "weights", {layers, AttentionWeights::count(width)});
    check_floats(tables, "tables", {layers, tables.size(1), 2, 4 * width});
    check_floats(norm, "norm", {2, width});
    checked_edges(index, 1, atoms, nullptr, nullptr, nullptr);
  }

  EncoderEdges edge_list() const {
    const int64_t* pairs = data<int64_t>(index);
    return {edges, pairs + edges, pairs, geometry.directions.data(), geometry.envelope.data(), geometry.places.data()};
  }

  AttentionWeights weights_of(int64_t layer) const {
    return {width, data<float>(weights) + layer * AttentionWeights::count(width)};
  }

  AttentionInputs inputs(int64_t layer, const AttentionState& state) const {
    const int64_t knots = tables.size(1), size = 8 * knots * width;
    return {width, head_width, state.node(), state.vectors(), {data<float>(tables) + layer * size, knots, 4 * width}};
  }

  // Calls body(begin, end) on parts of the atoms.
  template <typename Body>
  void for_atoms(const Body& body) const {
    Sums none;
    none.run(threads, atoms, [&](int64_t begin, int64_t end, const std::vector<float*>&) { body(begin, end); });
  }
};

// States of all layers, then the scalars behind the last one.
AttentionState state_of(const Tensor& kept, int64_t layer, int64_t atoms, int64_t width) {
  return {atoms, width, data<float>(kept) + layer * AttentionState::count(atoms, width)};
}

void boxed_attention_network(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor embedded = pop_tensor(stack[3]);
  check(embedded.dim() == 2, "scalars has shape " + shape_text(embedded) + ": give (number of atoms, width)");
  const Network net(stack, embedded, 7);
  const AttentionNetworkKernels& kernels = attention_network_kernels();
  const int64_t atoms = net.atoms, width = net.width;
  const int64_t size = net.layers * AttentionState::count(atoms, width) + atoms * width;
  const Tensor kept = empty(embedded, {size}, aoti_torch_dtype_float32());
  const Tensor scalars = empty(embedded, {atoms, width}, aoti_torch_dtype_float32());
  Tensor vectors = empty(embedded, {atoms, 3, width}, aoti_torch_dtype_float32());
  if (atoms == 0) {
    stack[0] = push_tensor(scalars), stack[1] = push_tensor(vectors), stack[2] = push_tensor(kept);
    return;
  }
  std::memset(data<float>(vectors), 0, sizeof(float) * static_cast<size_t>(3 * atoms * width));
  std::vector<float> normalized(static_cast<size_t>(atoms * width));
  std::memcpy(state_of(kept, 0, atoms, width).scalars(), data<float>(embedded), normalized.size() * sizeof(float));
  const EncoderEdges edges = net.edge_list();
  for (int64_t layer = 0; layer < net.layers; ++layer) {
    const AttentionState state = state_of(kept, layer, atoms, width);
    const AttentionWeights weights = net.weights_of(layer);
    std::memcpy(state.vectors(), data<float>(vectors), sizeof(float) * static_cast<size_t>(3 * atoms * width));
    net.for_atoms([&](int64_t begin, int64_t end) {
      kernels.normalize(state.scalars(), begin, end, width, weights.norm(), normalized.data());
      kernels.multiply(normalized.data(), begin, end, width, weights.node(), weights.node_bias(), 5 * width,
                       state.node());
      kernels.multiply(state.vectors(), 3 * begin, 3 * end, width, weights.mixing(), nullptr, 3 * width,
                       state.mixed());
    });
    Sums sums;
    const Tensor scalar_sums = sums.add(embedded, {atoms, width});
    vectors = sums.add(embedded, {atoms, 3, width});
    const AttentionInputs in = net.inputs(layer, state);
    sums.run(net.threads, edges.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
      encoder_kernels().attention(edges, begin, end, in, out[0], out[1]);
    });
    float* next = state_of(kept, layer + 1, atoms, width).scalars();
    net.for_atoms([&](int64_t begin, int64_t end) {
      kernels.multiply(data<float>(scalar_sums), begin, end, width, weights.out(), weights.out_bias(), 3 * width,
                       state.gates());
      kernels.update(state, begin, end, next, data<float>(vectors));
    });
  }
  kernels.normalize(state_of(kept, net.layers, atoms, width).scalars(), 0, atoms, width, data<float>(net.norm),
                    data<float>(scalars));
  stack[0] = push_tensor(scalars), stack[1] = push_tensor(vectors), stack[2] = push_tensor(kept);
}

void boxed_attention_network_backward(StableIValue* stack, uint64_t, uint64_t) {
  const Tensor embedded = pop_tensor(stack[3]), kept = pop_tensor(stack[7]);
  const Tensor from_scalars = pop_tensor(stack[8]), from_vectors = pop_tensor(stack[9]);
  const Network net(stack, embedded, 10);
  const AttentionNetworkKernels& kernels = attention_network_kernels();
  const int64_t atoms = net.atoms, width = net.width, count = net.edges;
  check_floats(from_scalars, "the gradient of scalars", {atoms, width});
  check_floats(from_vectors, "the gradient of vectors", {atoms, 3, width});
  const Tensor to_vectors = empty(embedded, {count, 3}, aoti_torch_dtype_float32());
  const Tensor to_distances = empty(embedded, {count}, aoti_torch_dtype_float32());
  const auto size = static_cast<size_t>(atoms * width);
  std::vector<float> scalars(size, 0.f), vectors(3 * size), mixed(9 * size), gates(3 * size), sums_back(size),
      mixed_back(3 * size), normalized(size);
  std::vector<float> directions(static_cast<size_t>(3 * count)), envelope(static_cast<size_t>(count)),
      places(static_cast<size_t>(count)), total(static_cast<size_t>(5 * count), 0.f);
  if (atoms > 0) {
    std::memcpy(vectors.data(), data<float>(from_vectors), sizeof(float) * vectors.size());
    kernels.normalize_back(state_of(kept, net.layers, atoms, width).scalars(), 0, atoms, width, data<float>(net.norm),
                           data<float>(from_scalars), scalars.data());
  }
  const EncoderEdges edges = net.edge_list();
  for (int64_t layer = net.layers - 1; layer >= 0 && atoms > 0; --layer) {
    const AttentionState state = state_of(kept, layer, atoms, width);
    const AttentionWeights weights = net.weights_of(layer);
    net.for_atoms([&](int64_t begin, int64_t end) {
      kernels.update_back(state, begin, end, scalars.data(), vectors.data(), mixed.data(), gates.data());
      kernels.multiply(gates.data(), begin, end, 3 * width, weights.out_back(), nullptr, width, sums_back.data());
      kernels.multiply(mixed.data(), 3 * begin, 3 * end, 3 * width, weights.mixing_back(), nullptr, width,
                       mixed_back.data());
    });
    Sums sums;
    const Tensor node = sums.add(embedded, {atoms, 5 * width}), carried = sums.add(embedded, {atoms, 3, width});
    const AttentionInputs in = net.inputs(layer, state);
    sums.run(net.threads, count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
      const AttentionGradients gradients{sums_back.data(), vectors.data(), out[0], out[1], nullptr, directions.data(),
                                         envelope.data(), places.data()};
      encoder_gradient_kernels().attention(edges, begin, end, in, gradients);
    });
    for (int64_t k = 0; k < 3 * count; ++k) total[k] += directions[k];
    for (int64_t e = 0; e < count; ++e) total[3 * count + e] += envelope[e], total[4 * count + e] += places[e];
    if (layer == 0) break;
    net.for_atoms([&](int64_t begin, int64_t end) {
      kernels.multiply(data<float>(node), begin, end, 5 * width, weights.node_back(), nullptr, width,
                       normalized.data());
      kernels.normalize_back(state.scalars(), begin, end, width, weights.norm(), normalized.data(), scalars.data());
      for (int64_t k = 3 * width * begin; k < 3 * width * end; ++k) {
        vectors[k] += mixed_back[k] + data<float>(carried)[k];
      }
    });
  }
  const float *lengths = data<float>(net.distances), *offsets = data<float>(net.vectors);
  const double pi = kPi / net.cutoff, fall = 5.0 / net.cutoff;
  for (int64_t e = 0; e < count; ++e) {
    const double d = lengths[e], inverse = d > 0 ? 1.0 / d : 1.0;
    double along = 0;
    for (int64_t k = 3 * e; k < 3 * e + 3; ++k) {
      data<float>(to_vectors)[k] = static_cast<float>(total[k] * inverse);
      along += static_cast<double>(total[k]) * offsets[k];
    }
    const double of_direction = d > 0 ? -along * inverse * inverse : 0.0;
    const double of_envelope = d < net.cutoff ? -0.5 * pi * std::sin(pi * d) * total[3 * count + e] : 0.0;
    const double knots = kDecaying * fall / (1.0 - std::exp(-5.0)) * std::exp(-fall * d) + kEven / net.cutoff;
    data<float>(to_distances)[e] = static_cast<float>(of_direction + of_envelope + knots * total[4 * count + e]);
  }
  stack[0] = push_tensor(to_vectors), stack[1] = push_tensor(to_distances);
}

}  // namespace

}  // namespace openmm_gnn

STABLE_TORCH_LIBRARY_FRAGMENT(openmm_gnn, library) {
  library.def(
      "attention_network(Tensor edge_index, Tensor edge_vectors, Tensor edge_distances, Tensor scalars,"
      " Tensor weights, Tensor tables, Tensor norm, float cutoff, int head_width, int num_threads)"
      " -> (Tensor scalars, Tensor vectors, Tensor kept)");
  library.def(
      "attention_network_backward(Tensor edge_index, Tensor edge_vectors, Tensor edge_distances, Tensor scalars,"
      " Tensor weights, Tensor tables, Tensor norm, Tensor kept, Tensor scalar_gradient, Tensor vector_gradient,"
      " float cutoff, int head_width, int num_threads) -> (Tensor edge_vectors, Tensor edge_distances)");
}

STABLE_TORCH_LIBRARY_IMPL(openmm_gnn, CPU, library) {
  library.impl("attention_network", &openmm_gnn::boxed_attention_network);
  library.impl("attention_network_backward", &openmm_gnn::boxed_attention_network_backward);
}
