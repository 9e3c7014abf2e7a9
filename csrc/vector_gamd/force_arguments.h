// Arguments of the operator of network_forces.h, for every device.
#pragma once

#include <string>

#include "neighbors/neighbor_arguments.h"
#include "vector_gamd/network_forces.h"
#include "vector_gamd/network_weights.h"
#include "vector_gamd/pair_arguments.h"

namespace openmm_gnn {

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

// What is asked of the arguments but for the lists, without a look at the numbers.
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
    check_size("num_species", in.num_species, 1, 1 << 10);
    check_size("num_kinds", in.num_kinds, 1, 1 << 22);
    check_size("num_layers", in.num_layers, 1, 1 << 10);
    check_size("num_knots", in.num_knots, 4, 1 << 20);
    check(in.width >= 16 && in.width <= 4096 && in.width % 16 == 0,
          "the width is " + std::to_string(in.width) + ": give a multiple of 16, at most 4096");
    check(in.start >= 0 && in.start < in.near.cutoff && in.near.cutoff < 1e18,
          "a radial table needs start below a finite cutoff");
  }

  ForceNetworkWeights network(const ForceArguments& in) const {
    const ForceNetworkWeights found(weights, sizes, static_cast<float>(in.start), static_cast<float>(in.near.cutoff));
    check(found.count == in.weights.numel(), "weights has " + std::to_string(in.weights.numel()) +
                                                 " numbers: a network of " + std::to_string(in.num_layers) +
                                                 " layers of width " + std::to_string(in.width) + " has " +
                                                 std::to_string(found.count));
    return found;
  }

  // Of the pair term's splines.
  int64_t intervals(const ForceArguments& in) const {
    const int64_t count = in.pair_table.size(1);
    check(count >= 1 && in.start < in.far.cutoff, "a table of splines needs an interval, and start below the cutoff");
    return count;
  }

 private:
  static void check_size(const char* name, int64_t value, int64_t least, int64_t most) {
    check(value >= least && value <= most, std::string(name) + " is " + std::to_string(value) + ": give " +
                                               std::to_string(least) + " to " + std::to_string(most));
  }
};

inline void check_forces(const ForceArguments& in) {
  for (const TypedList* list : {&in.near, &in.far}) check_system(in.positions, in.box_vectors, list->cutoff);
  check(in.scale > 0 && in.scale < 1e18,
        "scale is " + std::to_string(in.scale) + ": give a finite number above 0");
}

}  // namespace openmm_gnn
