// The operators of molecule_edges.h.
#include "encoders/cpu/molecule_edges.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace openmm_gnn {

namespace {

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

Vector times(const Vector& v, const Matrix& m) {
  Vector to{};
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) to[d] += v[k] * m[k][d];
  }
  return to;
}

Matrix inverse_of(const Matrix& m) {
  Matrix to;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      const int a = (j + 1) % 3, b = (j + 2) % 3, c = (i + 1) % 3, d = (i + 2) % 3;
      to[i][j] = m[a][c] * m[b][d] - m[a][d] * m[b][c];
    }
  }
  const double volume = m[0][0] * to[0][0] + m[0][1] * to[1][0] + m[0][2] * to[2][0];
  check(volume != 0, "the box has no volume");
  for (Vector& row : to) {
    for (double& value : row) value /= volume;
  }
  return to;
}

// ---- whole molecules ------------------------------------------------------------------------------------------------

struct Molecules {
  const double* read;
  const int64_t *hops, *molecule;
  int64_t num_read, levels, num_selected;
};

// Translations that bring each molecule to its image nearest to the first.
void bring_together(const Molecules& in, const Matrix& box, const Matrix& inverse, std::vector<Vector>& whole) {
  const int64_t count = 1 + *std::max_element(in.molecule, in.molecule + in.num_selected);
  if (count == 1) return;
  std::vector<Vector> centroids(static_cast<size_t>(count)), moves(static_cast<size_t>(count));
  std::vector<int64_t> sizes(static_cast<size_t>(count));
  for (int64_t i = 0; i < in.num_selected; ++i) {
    for (int d = 0; d < 3; ++d) centroids[in.molecule[i]][d] += whole[i][d];
    ++sizes[in.molecule[i]];
  }
  for (int64_t m = 0; m < count; ++m) {
    Vector away;
    for (int d = 0; d < 3; ++d) {
      centroids[m][d] /= static_cast<double>(sizes[m]);
      away[d] = centroids[m][d] - centroids[0][d];
    }
    Vector nearest = times(away, inverse);
    for (double& value : nearest) value = -std::nearbyint(value);
    double least = INFINITY;
    for (int image = 0; image < 27; ++image) {
      const Vector candidate = times({nearest[0] + image / 9 - 1, nearest[1] + image / 3 % 3 - 1, nearest[2] + image % 3 - 1},
                                     box);
      double square = 0;
      for (int d = 0; d < 3; ++d) square += (away[d] + candidate[d]) * (away[d] + candidate[d]);
      if (square < least) least = square, moves[m] = candidate;
    }
  }
  for (int64_t i = 0; i < in.num_selected; ++i) {
    for (int d = 0; d < 3; ++d) whole[i][d] += moves[in.molecule[i]][d];
  }
}

std::vector<Vector> whole_atoms(const Molecules& in, const Matrix* box, const Matrix& inverse) {
  std::vector<Vector> whole(static_cast<size_t>(in.num_selected));
  const auto place = [&](int64_t atom) { return Vector{in.read[3 * atom], in.read[3 * atom + 1], in.read[3 * atom + 2]}; };
  for (int64_t i = 0; i < in.num_selected; ++i) whole[i] = place(i);
  if (box == nullptr) return whole;
  std::vector<Vector> shifts(static_cast<size_t>(in.num_read)), before;
  for (int64_t i = 0; i < in.num_read; ++i) {
    const Vector own = times(place(i), inverse), other = times(place(in.hops[i]), inverse);
    for (int d = 0; d < 3; ++d) shifts[i][d] = -std::nearbyint(own[d] - other[d]);
  }
  for (int64_t level = 0; level < in.levels; ++level) {
    before = shifts;
    for (int64_t i = 0; i < in.num_read; ++i) {
      for (int d = 0; d < 3; ++d) shifts[i][d] += before[in.hops[level * in.num_read + i]][d];
    }
  }
  for (int64_t i = 0; i < in.num_selected; ++i) {
    const Vector move = times(shifts[i], *box);
    for (int d = 0; d < 3; ++d) whole[i][d] += move[d];
  }
  bring_together(in, *box, inverse, whole);
  return whole;
}

// Whether no two of these atoms, in fractions of the box, can be within the cutoff of each other but as they are.
bool is_apart_from_images(const std::vector<Vector>& whole, const Matrix& inverse, double cutoff_nm) {
  Vector low, high;
  low.fill(INFINITY);
  high.fill(-INFINITY);
  for (const Vector& atom : whole) {
    const Vector at = times(atom, inverse);
    for (int d = 0; d < 3; ++d) low[d] = std::min(low[d], at[d]), high[d] = std::max(high[d], at[d]);
  }
  for (int d = 0; d < 3; ++d) {
    const double height = 1 / std::sqrt(inverse[0][d] * inverse[0][d] + inverse[1][d] * inverse[1][d] +
                                        inverse[2][d] * inverse[2][d]);
    if (!((1 - (high[d] - low[d])) * height > cutoff_nm)) return false;
  }
  return true;
}

// ---- edges ----------------------------------------------------------------------------------------------------------

// graph/edges.py `faded_edges`.
struct Fading {
  static constexpr double kNear = 0.8;
  double cutoff;
  int64_t max_neighbors;  // 0: all edges count fully

  double weight(double distance) const {
    const double x = 1 - distance * distance / (cutoff * cutoff);
    return x * x;
  }

  struct Reach {
    double length, slope;  // slope by the sum of the weights
  };

  Reach reach(double weights) const {
    if (max_neighbors == 0) return {cutoff, 0};
    const double per_weight = 35.0 / 8.0 / static_cast<double>(max_neighbors), plain = weights * per_weight;
    const double above = std::max(plain - 0.75, 0.0);
    const double crowding = plain < 1.25 ? 1 + above * above : plain, slope = plain < 1.25 ? 2 * above : 1.0;
    const double length = cutoff / std::cbrt(crowding);
    return {length, -length / (3 * crowding) * slope * per_weight};
  }

  struct Stretched {
    double length, by_distance, by_reach;
  };

  Stretched stretched(double distance, double reach) const {
    const double span = (1 - kNear) * reach, place = (distance - kNear * reach) / span;
    const double outer = std::min(std::max(place, 0.0), 1.0), part = outer * outer * (3 - 2 * outer);
    const double slope = (cutoff - reach) * 6 * outer * (1 - outer);
    return {distance + (cutoff - reach) * part, 1 + slope / span, -part - slope * distance / (span * reach)};
  }
};

void check_lengths(double per_nm, double cutoff, int64_t max_neighbors) {
  check(per_nm > 0 && per_nm < 1e18 && cutoff > 0 && cutoff < 1e18 && max_neighbors >= 0,
        "per_nm is " + std::to_string(per_nm) + ", cutoff " + std::to_string(cutoff) + ", max_neighbors " +
            std::to_string(max_neighbors) + ": give lengths above 0, and 0 or more neighbours");
}

struct Pair {
  int64_t target, source;
  Vector vector;
  double distance;
};

std::vector<Pair> pairs_within(const std::vector<Vector>& atoms, const int64_t* starts, int64_t graphs, double cutoff) {
  std::vector<Pair> found;
  found.reserve(32 * atoms.size());
  for (int64_t graph = 0; graph < graphs; ++graph) {
    for (int64_t i = starts[graph]; i < starts[graph + 1]; ++i) {
      const Vector& target = atoms[i];
      for (int64_t j = starts[graph]; j < starts[graph + 1]; ++j) {
        const Vector v{atoms[j][0] - target[0], atoms[j][1] - target[1], atoms[j][2] - target[2]};
        const double square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
        if (square < cutoff * cutoff) found.push_back({i, j, v, std::sqrt(square)});
      }
    }
  }
  return found;
}

}  // namespace

MoleculeEdges molecule_edges_cpu(const MoleculeArguments& in) {
  const CheckedArguments given(in.read, "read");
  const int64_t num_read = size_of(in.read, "read", 0, 2), selected = size_of(in.molecule, "molecule", 0, 1);
  const int64_t copies = size_of(in.copies, "copies", 0, 1), graphs = size_of(in.starts, "starts", 0, 1) - 1;
  const Molecules molecules{given.get<double>(in.read, "read", {num_read, 3}),
                            given.get<int64_t>(in.hops, "hops", {kAny, num_read}),
                            given.get<int64_t>(in.molecule, "molecule", {selected}),
                            num_read, in.hops.size(0), selected};
  const int64_t* rows = given.get<int64_t>(in.copies, "copies", {copies});
  const int64_t* starts = given.get<int64_t>(in.starts, "starts", {kAny});
  check(selected > 0 && selected <= num_read && molecules.levels > 0 && graphs > 0,
        "there are no atoms, no hops or no graphs");
  check_below(molecules.hops, molecules.levels * num_read, num_read, "a hop");
  check_below(molecules.molecule, selected, selected, "a molecule");
  check_below(rows, copies, selected, "a copy");
  check(starts[0] == 0 && starts[graphs] == copies && std::is_sorted(starts, starts + graphs + 1),
        "the graphs do not begin one behind the other");
  check_lengths(in.per_nm, in.cutoff, in.max_neighbors);
  for (int64_t k = 0; k < 3 * num_read; ++k) {
    check(std::isfinite(molecules.read[k]), "a position is not finite");
  }

  const int64_t box_rows = size_of(in.box, "box", 0, 2);
  const bool periodic = box_rows > 0;
  Matrix box{}, inverse{};
  if (periodic) {
    const double* numbers = given.get<double>(in.box, "box", {3, 3});
    for (int k = 0; k < 9; ++k) box[k / 3][k % 3] = numbers[k];
    inverse = inverse_of(box);
  }
  std::vector<Vector> whole = whole_atoms(molecules, periodic ? &box : nullptr, inverse);
  const bool served = !periodic || is_apart_from_images(whole, inverse, in.cutoff / in.per_nm);

  Vector centroid{};
  for (const Vector& atom : whole) {
    for (int d = 0; d < 3; ++d) centroid[d] += atom[d] / static_cast<double>(selected);
  }
  const Tensor centred = empty(in.read, {selected, 3}, aoti_torch_dtype_float32());
  for (int64_t i = 0; i < selected; ++i) {
    for (int d = 0; d < 3; ++d) {
      whole[i][d] = (whole[i][d] - centroid[d]) * in.per_nm;
      data<float>(centred)[3 * i + d] = static_cast<float>(whole[i][d]);
    }
  }
  std::vector<Vector> atoms(static_cast<size_t>(copies));
  for (int64_t c = 0; c < copies; ++c) atoms[c] = whole[rows[c]];
  const std::vector<Pair> found = served ? pairs_within(atoms, starts, graphs, in.cutoff) : std::vector<Pair>();

  const Fading fading{in.cutoff, in.max_neighbors};
  std::vector<double> weights(static_cast<size_t>(copies)), reaches(static_cast<size_t>(copies)), lengths(found.size());
  for (const Pair& pair : found) weights[pair.target] += fading.weight(pair.distance);
  for (int64_t c = 0; c < copies; ++c) reaches[c] = fading.reach(weights[c]).length;
  int64_t edges = 0;
  for (size_t p = 0; p < found.size(); ++p) {
    lengths[p] = fading.stretched(found[p].distance, reaches[found[p].target]).length;
    edges += lengths[p] < in.cutoff;
  }
  const auto num_pairs = static_cast<int64_t>(found.size());
  const Tensor index = empty(in.read, {2, edges}, aoti_torch_dtype_int64());
  const Tensor vectors = floats_like(in.read, {edges, 3}), distances = floats_like(in.read, {edges});
  const Tensor pairs = empty(in.read, {3, num_pairs}, aoti_torch_dtype_int64());
  const Tensor kept = empty(in.read, {num_pairs, 4}, aoti_torch_dtype_float64());
  int64_t e = 0;
  for (int64_t p = 0; p < num_pairs; ++p) {
    const Pair& pair = found[p];
    data<int64_t>(pairs)[p] = pair.target;
    data<int64_t>(pairs)[num_pairs + p] = pair.source;
    data<int64_t>(pairs)[2 * num_pairs + p] = lengths[p] < in.cutoff ? e : -1;
    for (int d = 0; d < 3; ++d) data<double>(kept)[4 * p + d] = pair.vector[d];
    data<double>(kept)[4 * p + 3] = pair.distance;
    if (!(lengths[p] < in.cutoff)) continue;
    const double ratio = pair.distance > 0 ? lengths[p] / pair.distance : 0;
    data<int64_t>(index)[e] = pair.source;
    data<int64_t>(index)[edges + e] = pair.target;
    for (int d = 0; d < 3; ++d) data<float>(vectors)[3 * e + d] = static_cast<float>(pair.vector[d] * ratio);
    data<float>(distances)[e++] = static_cast<float>(lengths[p]);
  }
  return {centred, index, vectors, distances, pairs, kept};
}

Tensor molecule_edges_backward_cpu(const MoleculeGradients& in) {
  const CheckedArguments given(in.read, "read");
  const int64_t num_read = size_of(in.read, "read", 0, 2), copies = size_of(in.copies, "copies", 0, 1);
  const int64_t num_pairs = size_of(in.pairs, "pairs", 1, 2), edges = size_of(in.distances, "distance_gradient", 0, 1);
  const int64_t selected = size_of(in.centred, "centred_gradient", 0, 2);
  const int64_t* rows = given.get<int64_t>(in.copies, "copies", {copies});
  const int64_t* pairs = given.get<int64_t>(in.pairs, "pairs", {3, num_pairs});
  const double* lengths = given.get<double>(in.lengths, "lengths", {num_pairs, 4});
  const float* from_vectors = given.get<float>(in.vectors, "vector_gradient", {edges, 3});
  const float* from_distances = given.get<float>(in.distances, "distance_gradient", {edges});
  const float* from_centred = given.get<float>(in.centred, "centred_gradient", {selected, 3});
  check(selected <= num_read, "more atoms are centred than read");
  check(in.read.size(1) == 3, "read has shape " + shape_text(in.read) + ": expected (any, 3)");
  check_lengths(in.per_nm, in.cutoff, in.max_neighbors);
  check_below(rows, copies, selected, "a copy");
  check_below(pairs, 2 * num_pairs, copies, "an atom of a pair");

  const Fading fading{in.cutoff, in.max_neighbors};
  std::vector<double> weights(static_cast<size_t>(copies)), by_weights(static_cast<size_t>(copies));
  std::vector<double> by_distance(static_cast<size_t>(num_pairs)), ratios(static_cast<size_t>(num_pairs));
  std::vector<Fading::Reach> reaches(static_cast<size_t>(copies));
  for (int64_t p = 0; p < num_pairs; ++p) weights[pairs[p]] += fading.weight(lengths[4 * p + 3]);
  for (int64_t c = 0; c < copies; ++c) reaches[c] = fading.reach(weights[c]);
  for (int64_t p = 0; p < num_pairs; ++p) {
    const int64_t e = pairs[2 * num_pairs + p], target = pairs[p];
    const double distance = lengths[4 * p + 3];
    check(e < edges, "a pair has no such edge");
    if (e < 0 || !(distance > 0)) continue;
    const Fading::Stretched stretched = fading.stretched(distance, reaches[target].length);
    double along = 0;
    for (int d = 0; d < 3; ++d) along += static_cast<double>(from_vectors[3 * e + d]) * lengths[4 * p + d];
    const double by_length = from_distances[e] + along / distance;
    ratios[p] = stretched.length / distance;
    by_distance[p] = by_length * stretched.by_distance - along * ratios[p] / distance;
    by_weights[target] += by_length * stretched.by_reach * reaches[target].slope;
  }

  const Tensor forces = empty(in.read, {num_read, 3}, aoti_torch_dtype_float64());
  double* to = data<double>(forces);
  for (int64_t k = 0; k < 3 * num_read; ++k) to[k] = k < 3 * selected ? from_centred[k] : 0.0;
  for (int64_t p = 0; p < num_pairs; ++p) {
    const int64_t e = pairs[2 * num_pairs + p], target = rows[pairs[p]], source = rows[pairs[num_pairs + p]];
    const double distance = lengths[4 * p + 3];
    if (!(distance > 0)) continue;
    const double square = in.cutoff * in.cutoff, x = 1 - distance * distance / square;
    const double of_weight = by_weights[pairs[p]] * (in.max_neighbors > 0 ? -4 * distance / square * x : 0);
    const double radial = (by_distance[p] + of_weight) / distance;
    for (int d = 0; d < 3; ++d) {
      const double v = (e < 0 ? 0.0 : from_vectors[3 * e + d] * ratios[p]) + radial * lengths[4 * p + d];
      to[3 * source + d] += v;
      to[3 * target + d] -= v;
    }
  }
  for (int64_t k = 0; k < 3 * num_read; ++k) to[k] *= -in.per_nm;
  return forces;
}

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kMoleculeEdges, molecule_edges_cpu>(library);
  implement<kMoleculeEdgesBackward, molecule_edges_backward_cpu>(library);
}

}  // namespace openmm_gnn
