// A learned CV of a TorchMD-ET in two operators: positions to values, and slopes of energies to their forces. Each calls the
// operators of molecule_edges.h, network_operators.h and programs/cpu/array_program.h in turn: from Python, these calls
// would take as long as the work of ten atoms.
#include <cmath>
#include <cstring>
#include <vector>

#include "base/arguments.h"
#include "base/boxed.h"
#include "encoders/cpu/molecule_edges.h"
#include "encoders/cpu/network_operators.h"
#include "programs/cpu/array_program.h"

namespace openmm_gnn {

// From read to max_neighbors as molecule_edges, from embedded to num_threads as attention_network. The program takes
// scalars and vectors of atoms, and centred, and `places` says where in its memory these are, the outputs, their number,
// the slope, the three gradients, -1 for none, and the end of its parts forth and back.
//
// values (D,) float64; what follows is for learned_cv_forces. No value at all where molecule_edges gives no edge.
inline constexpr char kLearnedCvValues[] =
    "learned_cv_values(Tensor read, Tensor box, Tensor hops, Tensor molecule, Tensor copies, Tensor starts,"
    " float per_nm, float cutoff, int max_neighbors, Tensor embedded, Tensor weights, Tensor tables, Tensor norm,"
    " int head_width, int num_threads, Tensor program, Tensor(a!) memory, Tensor places) -> (Tensor values, Tensor edge_index,"
    " Tensor edge_vectors, Tensor edge_distances, Tensor pairs, Tensor lengths, Tensor kept)";

// Forces (M, R, 3) float64, kJ/mol/nm, of M energies whose gradients by the values are slopes (M, D) float64.
inline constexpr char kLearnedCvForces[] =
    "learned_cv_forces(Tensor read, Tensor molecule, Tensor copies, float per_nm, float cutoff, int max_neighbors,"
    " Tensor embedded, Tensor weights, Tensor tables, Tensor norm, int head_width, int num_threads, Tensor program,"
    " Tensor(a!) memory, Tensor places, Tensor edge_index, Tensor edge_vectors, Tensor edge_distances, Tensor pairs,"
    " Tensor lengths, Tensor kept, Tensor slopes) -> Tensor";

namespace {

struct Networks {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, int64_t, int64_t, Tensor, Tensor, Tensor>;
  Tensor embedded, weights, tables, norm;
  int64_t head_width, num_threads;
  Tensor program, memory, places;

  NetworkArguments on(const Tensor& index, const Tensor& vectors, const Tensor& distances, double cutoff) const {
    return {index, vectors, distances, embedded, weights, tables, norm, cutoff, head_width, num_threads};
  }
};

// Where the program's memory has what.
struct Places {
  enum Place { kScalars, kVectors, kCentred, kOutputs, kCount, kSlope, kScalarsBack, kVectorsBack, kCentredBack, kTurn, kEnd };
  const int64_t* at;
  float* memory;
  int64_t size;

  explicit Places(const Networks& cv) : size(size_of(cv.memory, "memory", 0, 1)) {
    const CheckedArguments given(cv.memory, "memory");
    memory = given.get<float>(cv.memory, "memory", {size});
    at = given.get<int64_t>(cv.places, "places", {kEnd + 1});
    check(at[kCount] > 0 && at[kCount] <= size, "a CV of " + std::to_string(at[kCount]) + " values");
  }

  // `count` numbers of the memory; null where there are none.
  float* numbers(Place place, int64_t count) const {
    if (at[place] == -1) return nullptr;
    check(at[place] >= 0 && at[place] <= size && count <= size - at[place],
          "place " + std::to_string(place) + " is number " + std::to_string(at[place]) + " of a memory of " +
              std::to_string(size));
    return memory + at[place];
  }

  void take_in(Place place, const Tensor& tensor) const {
    float* to = numbers(place, tensor.numel());
    check(to != nullptr, "an input has no place");
    std::memcpy(to, data<float>(tensor), sizeof(float) * static_cast<size_t>(tensor.numel()));
  }

  void take_out(Place place, int64_t count, float* to) const {
    const auto bytes = sizeof(float) * static_cast<size_t>(count);
    const float* from = numbers(place, count);
    if (from != nullptr) std::memcpy(to, from, bytes);
    else std::memset(to, 0, bytes);
  }
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> learned_cv_values_cpu(const MoleculeArguments& molecules,
                                                                                      const Networks& cv) {
  const Places places(cv);
  const auto [centred, index, vectors, distances, pairs, lengths] = molecule_edges_cpu(molecules);
  if (index.size(1) == 0) {
    const Tensor none = empty(centred, {0}, aoti_torch_dtype_float64());
    return {none, index, vectors, distances, pairs, lengths, none};
  }
  const auto [scalars, atom_vectors, kept] = attention_network_cpu(cv.on(index, vectors, distances, molecules.cutoff));
  places.take_in(Places::kScalars, scalars);
  places.take_in(Places::kVectors, atom_vectors);
  places.take_in(Places::kCentred, centred);
  run_array_program_cpu(cv.program, cv.memory, 0, places.at[Places::kTurn]);
  const int64_t count = places.at[Places::kCount];
  const Tensor values = empty(centred, {count}, aoti_torch_dtype_float64());
  const float* outputs = places.numbers(Places::kOutputs, count);
  check(outputs != nullptr, "the outputs have no place");
  for (int64_t k = 0; k < count; ++k) data<double>(values)[k] = outputs[k];
  return {values, index, vectors, distances, pairs, lengths, kept};
}

struct CvState {
  using Fields = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
  Tensor index, vectors, distances, pairs, lengths, kept, slopes;
};

struct Atoms {
  using Fields = std::tuple<Tensor, Tensor, Tensor, double, double, int64_t>;
  Tensor read, molecule, copies;
  double per_nm, cutoff;
  int64_t max_neighbors;
};

Tensor learned_cv_forces_cpu(const Atoms& in, const Networks& cv, const CvState& state) {
  const Places places(cv);
  const int64_t count = places.at[Places::kCount];
  const CheckedArguments given(cv.memory, "memory");
  const int64_t directions = size_of(state.slopes, "slopes", 0, 2);
  const double* slopes = given.get<double>(state.slopes, "slopes", {directions, count});
  const int64_t atoms = size_of(cv.embedded, "embedded", 0, 2), width = cv.embedded.size(1);
  const int64_t selected = size_of(in.molecule, "molecule", 0, 1), read = size_of(in.read, "read", 0, 2);
  float* direction = places.numbers(Places::kSlope, count);
  check(direction != nullptr, "the slope has no place");
  std::vector<float> scalars(static_cast<size_t>(directions * atoms * width)), vectors(3 * scalars.size());
  std::vector<Tensor> centred;
  for (int64_t m = 0; m < directions; ++m) {
    for (int64_t k = 0; k < count; ++k) direction[k] = static_cast<float>(slopes[m * count + k]);
    run_array_program_cpu(cv.program, cv.memory, places.at[Places::kTurn], places.at[Places::kEnd]);
    const int64_t size = atoms * width;
    places.take_out(Places::kScalarsBack, size, scalars.data() + m * size);
    places.take_out(Places::kVectorsBack, 3 * size, vectors.data() + 3 * m * size);
    centred.push_back(floats_like(cv.embedded, {selected, 3}));
    places.take_out(Places::kCentredBack, 3 * selected, data<float>(centred.back()));
  }
  const auto of_edges = attention_network_directions(cv.on(state.index, state.vectors, state.distances, in.cutoff),
                                                     state.kept, directions, scalars.data(), vectors.data());
  const Tensor forces = empty(in.read, {directions, read, 3}, aoti_torch_dtype_float64());
  for (int64_t m = 0; m < directions; ++m) {
    const auto& [of_vectors, of_distances] = of_edges[m];
    const Tensor found = molecule_edges_backward_cpu({in.read, in.copies, state.pairs, state.lengths, of_vectors,
                                                      of_distances, centred[m], in.per_nm, in.cutoff, in.max_neighbors});
    std::memcpy(data<double>(forces) + m * read * 3, data<double>(found), sizeof(double) * static_cast<size_t>(3 * read));
  }
  return forces;
}

}  // namespace

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kLearnedCvValues, learned_cv_values_cpu>(library);
  implement<kLearnedCvForces, learned_cv_forces_cpu>(library);
}

}  // namespace openmm_gnn
