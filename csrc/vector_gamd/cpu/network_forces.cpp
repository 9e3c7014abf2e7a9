// The operator of ../network_forces.h: checks, the pairs of both lists, and the sum of all terms.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/cpu/threads.h"
#include "mesh/cpu/particle_mesh.h"
#include "neighbors/cpu/neighbor_list.h"
#include "neighbors/cpu/system_of.h"
#include "neighbors/lattice.h"
#include "neighbors/pair_rules.h"
#include "vector_gamd/cpu/force_network.h"
#include "vector_gamd/cpu/pair_term.h"
#include "vector_gamd/force_arguments.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kFarPairsPerThread = 20000;

// A list that is right for the positions, with the kinds of all pairs that it stores; locked as long as this lives.
template <typename T>
struct TypedPairs {
  CurrentList<T> list;
  StoredPairs<T> stored;
  const int32_t* kinds;
  int64_t num_kinds;

  // Kinds are the caller's memory, so each is looked at before it is used.
  int64_t kind(int64_t place) const {
    if (kinds[place] < 0 || kinds[place] >= num_kinds) fail_kind(place);
    return kinds[place];
  }

  [[noreturn]] void fail_kind(int64_t place) const {
    fail("stored pair " + std::to_string(place) + " is of kind " + std::to_string(kinds[place]) + ": there are " +
         std::to_string(num_kinds));
  }

  bool has_atoms(int64_t place) const {
    const uint32_t atoms = static_cast<uint32_t>(stored.num_atoms);
    return static_cast<uint32_t>(stored.i[place]) < atoms && static_cast<uint32_t>(stored.j[place]) < atoms;
  }
};

template <typename T>
TypedPairs<T> typed_pairs(const ForceArguments& in, const ForceCall& call, const TypedList& from) {
  thread_local Tracked<T> tracked;
  const ListArguments list{in.positions, in.box_vectors, from.cutoff, from.skin, false, true, true, in.num_threads,
                           from.reference_positions, from.reference_box, from.pairs, from.shifts, from.status};
  CurrentList<T> now = current_list(list, tracked);
  const ListState<T> state = now.state;
  int32_t* kinds = call.given.get<int32_t>(from.kinds, "kinds", {state.capacity});
  TypedPairs<T> pairs{std::move(now), stored_pairs(state, call.atoms, tracked, from.cutoff), kinds, call.sizes.kinds};
  if (state.status[kStatusKinds] != state.status[kStatusRebuilds]) {
    for (int64_t k = 0; k < pairs.stored.count; ++k) {
      if (!pairs.has_atoms(k)) fail_stored_pair(pairs.stored, k);
      kinds[k] = static_cast<int32_t>(pair_kind(call.kinds, pairs.stored.i[k], pairs.stored.j[k]));
    }
    state.status[kStatusKinds] = state.status[kStatusRebuilds];
  }
  return pairs;
}

// ---- the network ----------------------------------------------------------------------------------------------------

struct NetworkArrays {
  Arrays arrays;
  Buffer<int32_t> first, second;
  Buffer<RadialEdge> edges;
  Buffer<float> vectors, strengths;
};

template <typename T>
PreparedEdges prepared_edges(const TypedPairs<T>& pairs, const SplineTable& table, NetworkArrays& to) {
  thread_local CloseList<T> kept;
  CloseList<T>& close_list = kept;  // the caller's, also in the other threads
  close_list.find(pairs.stored, pairs.list.num_threads);
  const int64_t count = close_list.starts.back();
  int32_t *first = to.first.reserve(count), *second = to.second.reserve(count);
  RadialEdge* edges = to.edges.reserve(count);
  for_parts(pairs.list.num_threads, pairs.list.num_threads, [&](int thread, int64_t, int64_t) {
    const ClosePairs<T>& close = *close_list.parts[static_cast<size_t>(thread)];
    const int64_t begin = close_list.starts[static_cast<size_t>(thread)];
    std::copy(close.i.get(), close.i.get() + close.count, first + begin);
    std::copy(close.j.get(), close.j.get() + close.count, second + begin);
    for (int64_t k = 0; k < close.count; ++k) {
      const T x = close.x[k], y = close.y[k], z = close.z[k];
      const float vector[3] = {static_cast<float>(x), static_cast<float>(y), static_cast<float>(z)};
      const float distance = static_cast<float>(std::sqrt(squared_length(x, y, z)));
      edges[begin + k] = radial_edge(vector, distance, pairs.kind(close.place[k]), table);
    }
  });
  return {count, first, second, edges};
}

// Adds to the forces (N, 3); returns the energy.
template <typename T>
double add_network(const ForceArguments& in, const ForceCall& call, double* forces) {
  thread_local NetworkArrays memory;
  const float start = static_cast<float>(in.start), cutoff = static_cast<float>(in.near.cutoff);
  const ForceNetworkWeights weights = call.network(in);
  const TypedPairs<T> pairs = typed_pairs<T>(in, call, in.near);
  const PreparedEdges edges = prepared_edges(pairs, {nullptr, in.num_knots, 1, start, cutoff}, memory);
  const ForceNetwork net{weights, call.sizes, call.atoms, call.kinds.species, edges, in.num_threads};
  float* vectors = memory.vectors.reserve(3 * edges.count);
  double energy = 0;
  if (in.conservative) {
    energy = network_energy(net, static_cast<float>(in.scale), memory.arrays, vectors);
  } else {
    float* strengths = memory.strengths.reserve(edges.count);
    network_strengths(net, memory.arrays, strengths);
    for (int64_t k = 0; k < edges.count; ++k) {
      for (int d = 0; d < 3; ++d) vectors[3 * k + d] = static_cast<float>(in.scale) * strengths[k] * edges.edges[k].u[d];
    }
  }
  for (int64_t k = 0; k < edges.count; ++k) {
    for (int d = 0; d < 3; ++d) {
      forces[3 * edges.i(k) + d] += vectors[3 * k + d];
      forces[3 * edges.j(k) + d] -= vectors[3 * k + d];
    }
  }
  return energy;
}

// ---- the pair term --------------------------------------------------------------------------------------------------

template <typename T>
double add_pair_term(const ForceArguments& in, const ForceCall& call, double* forces) {
  const TypedPairs<T> pairs = typed_pairs<T>(in, call, in.far);
  const StoredPairs<T>& stored = pairs.stored;
  const int64_t intervals = call.intervals(in);
  const PairPolynomials splines{call.pair_table, call.sizes.kinds, intervals, in.start,
                                static_cast<double>(intervals) / (in.far.cutoff - in.start)};
  std::vector<double> places(static_cast<size_t>(4 * call.atoms));
  for (int64_t a = 0; a < call.atoms; ++a) {
    places[4 * a] = stored.tracked->x[a];
    places[4 * a + 1] = stored.tracked->y[a];
    places[4 * a + 2] = stored.tracked->z[a];
  }
  FarPairs far{stored.i, stored.j, stored.shifts, pairs.kinds, call.atoms, places.data(), {}, in.far.cutoff * in.far.cutoff};
  for (int k = 0; k < 9; ++k) far.box[k / 3][k % 3] = stored.box[k];
  const int threads = threads_for(in.num_threads, stored.count, kFarPairsPerThread);
  std::vector<double> energies(static_cast<size_t>(threads)), sums(4 * static_cast<size_t>(call.atoms * threads));
  for_parts(threads, stored.count, [&](int thread, int64_t begin, int64_t end) {
    double* to = sums.data() + 4 * call.atoms * thread;
    const int64_t last = pair_term_kernels().add(far, begin, end, splines, to, &energies[static_cast<size_t>(thread)]);
    if (last < end && !pairs.has_atoms(last)) fail_stored_pair(stored, last);
    if (last < end) pairs.fail_kind(last);
  });
  for (int thread = 0; thread < threads; ++thread) {
    const double* from = sums.data() + 4 * call.atoms * thread;
    for (int64_t n = 0; n < 3 * call.atoms; ++n) forces[n] += from[n / 3 * 4 + n % 3];
  }
  double energy = 0;
  for (const double one : energies) energy += one;
  return energy;
}

// ---- charges --------------------------------------------------------------------------------------------------------

template <typename T>
double add_charges(const ForceArguments& in, const ForceCall& call, double* forces) {
  const System<T> system = system_of<T>(in.positions, in.box_vectors);
  Lattice lattice{};
  check(system.box != nullptr && periodic_lattice(system.box, system.box_row_stride, system.box_column_stride, lattice),
        "this model has charges, which need a periodic box: simulate in one");
  const Tensor places = floats_like(in.positions, {call.atoms, 3}), values = floats_like(in.positions, {call.atoms}),
               box = floats_like(in.positions, {3, 3});
  for (int k = 0; k < 9; ++k) data<float>(box)[k] = static_cast<float>(system.box_element(k / 3, k % 3));
  for (int64_t a = 0; a < call.atoms; ++a) {
    const T* p = system.atom(a);
    const int64_t step = system.component_stride;
    const WrappedAtom<T> atom = wrap_atom(lattice, p[0], p[step], p[2 * step]);
    for (int d = 0; d < 3; ++d) data<float>(places)[3 * a + d] = static_cast<float>(atom.position[d]);
    data<float>(values)[a] = call.charges[call.kinds.species[a]];
  }
  std::vector<float> found(static_cast<size_t>(3 * call.atoms));
  const double energy = mesh_energy_and_forces(places, values, box, in.charge_width, {in.size_a, in.size_b, in.size_c},
                                               6, in.num_threads, found.data());
  for (size_t n = 0; n < found.size(); ++n) forces[n] += found[n];
  return energy;
}

template <typename T>
std::tuple<Tensor, Tensor> forces_of(const ForceArguments& in) {
  const ForceCall call(in);
  check_below(call.kinds.species, call.atoms, in.num_species, "the species of atom");
  std::vector<double> forces(static_cast<size_t>(3 * call.atoms));
  double energy = add_network<T>(in, call, forces.data());
  double pair_energy = 0;
  if (call.pair_table != nullptr) pair_energy += add_pair_term<T>(in, call, forces.data());
  if (call.charges != nullptr) pair_energy += add_charges<T>(in, call, forces.data());
  if (in.conservative) energy += pair_energy;
  const int32_t dtype = dtype_of(in.positions);
  const std::tuple<Tensor, Tensor> results{empty(in.positions, {}, dtype), empty(in.positions, {call.atoms, 3}, dtype)};
  *data<T>(std::get<0>(results)) = static_cast<T>(energy);
  std::copy(forces.begin(), forces.end(), data<T>(std::get<1>(results)));
  return results;
}

std::tuple<Tensor, Tensor> vector_gamd_forces_cpu(const ForceArguments& in) {
  check_forces(in);
  return is_float32(in.positions) ? forces_of<float>(in) : forces_of<double>(in);
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kVectorGamdForces, vector_gamd_forces_cpu>(library);
}

}  // namespace openmm_gnn
