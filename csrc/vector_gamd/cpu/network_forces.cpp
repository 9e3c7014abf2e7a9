// The operator of ../network_forces.h: checks, the pairs of both lists, and the sum of all terms.
#include "vector_gamd/network_forces.h"

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
#include "vector_gamd/pair_arguments.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kFarPairsPerThread = 20000;

struct TypedList {
  double cutoff, skin;
  Tensor reference_positions, reference_box, pairs, shifts, kinds, status;

  using Fields = std::tuple<double, double, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
};

struct ForceArguments {
  Tensor positions, box_vectors, species, partners, weights;
  int64_t num_species, num_kinds, width, num_layers, num_knots;
  double start, scale;
  bool conservative;
  TypedList near, far;
  Tensor pair_table, charges;
  double charge_width;
  int64_t size_a, size_b, size_c, num_threads;

  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, int64_t, int64_t, int64_t, double,
                            double, bool, TypedList, TypedList, Tensor, Tensor, double, int64_t, int64_t, int64_t,
                            int64_t>;
};

// What is asked of the data but for the lists.
struct ForceCall {
  CheckedArguments given;
  int64_t atoms;
  KindTables kinds;
  NetworkSizes sizes;
  const float *weights, *charges;
  const double* pair_table;

  explicit ForceCall(const ForceArguments& in)
      : given(in.positions, "positions"), atoms(in.positions.size(0)),
        kinds(kind_tables(given, in.species, in.partners, in.num_species)),
        sizes{in.num_species, in.num_kinds, in.width, in.num_layers, in.num_knots},
        weights(given.get<float>(in.weights, "weights", {kAny})),
        charges(given.get_or_null<float>(in.charges, "charges", {in.num_species})),
        pair_table(given.get_or_null<double>(in.pair_table, "pair_table", {in.num_kinds, kAny, 4})) {
    check(kinds.num_atoms == atoms, "species is of " + std::to_string(kinds.num_atoms) + " atoms and positions of " +
                                        std::to_string(atoms) + ": give one for each");
    check_below(kinds.species, atoms, in.num_species, "the species of atom");
    check_size("num_species", in.num_species, 1, 1 << 10);
    check_size("num_kinds", in.num_kinds, 1, 1 << 22);
    check_size("num_layers", in.num_layers, 1, 1 << 10);
    check_size("num_knots", in.num_knots, 4, 1 << 20);
    check(in.width >= 16 && in.width <= 4096 && in.width % 16 == 0,
          "the width is " + std::to_string(in.width) + ": give a multiple of 16, at most 4096");
    check(in.start >= 0 && in.start < in.near.cutoff && in.near.cutoff < 1e18,
          "a radial table needs start below a finite cutoff");
  }

 private:
  static void check_size(const char* name, int64_t value, int64_t least, int64_t most) {
    check(value >= least && value <= most, std::string(name) + " is " + std::to_string(value) + ": give " +
                                               std::to_string(least) + " to " + std::to_string(most));
  }
};

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
  const ForceNetworkWeights weights(call.weights, call.sizes, start, cutoff);
  check(weights.count == in.weights.numel(), "weights has " + std::to_string(in.weights.numel()) + " numbers: a network of " +
                                                 std::to_string(in.num_layers) + " layers of width " +
                                                 std::to_string(in.width) + " has " + std::to_string(weights.count));
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
  const int64_t intervals = in.pair_table.size(1);
  check(intervals >= 1 && in.start < in.far.cutoff, "a table of splines needs an interval, and start below the cutoff");
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
  for (const TypedList* list : {&in.near, &in.far}) check_system(in.positions, in.box_vectors, list->cutoff);
  check(in.scale > 0 && in.scale < 1e18,
        "scale is " + std::to_string(in.scale) + ": give a finite number above 0");
  return is_float32(in.positions) ? forces_of<float>(in) : forces_of<double>(in);
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kVectorGamdForces, vector_gamd_forces_cpu>(library);
}

}  // namespace openmm_gnn
