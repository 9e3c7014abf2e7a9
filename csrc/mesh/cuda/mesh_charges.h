// Smooth particle mesh electrostatics on the GPU, with PyTorch's Fourier transforms in between; the formulas are those of
// openmm_gnn/kernels/particle_mesh.py at order 6, and numbers of equations those of the paper that it names.
//
// The box is read on the device, from the plan of a neighbour list; the host knows the sizes of the grid alone, so all of it
// can be captured in a CUDA graph. Charges are added as integers, multiples of 2^-32 of their unit: the same bits at every
// call. SpreadCharges: one thread = one plane of an atom's points, 36 atomic additions. MeshWaves: one thread = one wave of
// the whole transform; the transform back is one of complex numbers, for the stable interface of LibTorch has no other.
// GatherCharges: one thread = one atom, 216 points read, mostly from the cache.
#pragma once

#include "neighbors/cuda/plan_search.h"
#include "vector_gamd/cuda/pair_forces.h"

namespace openmm_gnn::cuda {

constexpr int kMeshOrder = 6;
constexpr float kChargeSteps = 4294967296.f;   // of a unit
constexpr float kLargestCharge = 1073741824.f;  // of a point
// A box that has grown until fewer points than these lie in the width of a charge is refused: errors of forces would be some
// ten times those of two points.
constexpr double kFewestPoints = 1.8;
constexpr double kTwoPi = 6.283185307179586;

struct MeshSizes {
  int64_t a, b, c;

  OPENMM_GNN_HOST_DEVICE int64_t half() const { return c / 2 + 1; }
  OPENMM_GNN_HOST_DEVICE int64_t points() const { return a * b * c; }
  OPENMM_GNN_HOST_DEVICE int64_t of(int axis) const { return axis == 0 ? a : axis == 1 ? b : c; }
};

// Complex numbers of a transform, which PyTorch may lay out as it likes.
struct MeshTransform {
  float* values;
  int64_t step_a, step_b, step_c;  // in complex numbers

  OPENMM_GNN_HOST_DEVICE float* at(int64_t a, int64_t b, int64_t c) const {
    return values + 2 * (a * step_a + b * step_b + c * step_c);
  }
};

// M_n(t + k) and its derivative for k = 0 .. n - 1, eq. (4.1) and (4.2).
OPENMM_GNN_HOST_DEVICE void mesh_splines(float t, float (&weights)[kMeshOrder], float (&slopes)[kMeshOrder]) {
  weights[0] = t;
  weights[1] = 1.f - t;
  OPENMM_GNN_UNROLL
  for (int n = 3; n <= kMeshOrder; ++n) {
    if (n == kMeshOrder) {
      slopes[0] = weights[0];
      OPENMM_GNN_UNROLL
      for (int k = 1; k < n - 1; ++k) slopes[k] = weights[k] - weights[k - 1];
      slopes[n - 1] = -weights[n - 2];
    }
    const float scale = 1.f / static_cast<float>(n - 1);
    weights[n - 1] = (1.f - t) * weights[n - 2] * scale;
    OPENMM_GNN_UNROLL
    for (int k = n - 2; k > 0; --k) {
      weights[k] = ((t + static_cast<float>(k)) * weights[k] + (static_cast<float>(n - k) - t) * weights[k - 1]) * scale;
    }
    weights[0] *= t * scale;
  }
}

// An atom's charge and its splines along the three vectors of the box.
struct MeshAtom {
  float charge;
  int64_t first[3];  // the last point before it; its splines reach over this one and those before
  float weights[3][kMeshOrder], slopes[3][kMeshOrder];
};

template <typename T>
struct MeshAtoms {
  System<T> system;
  const Plan<T>* plan;
  const int64_t* species;
  const float* charges;  // (num_species,)
  int64_t num_species;
  MeshSizes sizes;

  // False for a position that is none, which the list has said.
  OPENMM_GNN_HOST_DEVICE bool find(int64_t n, MeshAtom& atom) const {
    T raw[3];
    for (int d = 0; d < 3; ++d) raw[d] = system.positions[n * system.row_stride + d * system.column_stride];
    const WrappedAtom<T> wrapped = wrap_atom(plan->lattice, raw[0], raw[1], raw[2]);
    if (!wrapped.valid || !plan->lattice.periodic) return false;
    atom.charge = species[n] >= 0 && species[n] < num_species ? charges[species[n]] : NAN;
    for (int axis = 0; axis < 3; ++axis) {
      const double size = static_cast<double>(sizes.of(axis)), scaled = wrapped.fractional[axis] * size;
      const double point = floor(scaled);
      int64_t first = static_cast<int64_t>(point);
      first = first < 0 ? 0 : first;
      atom.first[axis] = first < sizes.of(axis) ? first : 0;  // a fraction just below 0 can round up to 1
      mesh_splines(static_cast<float>(scaled - point), atom.weights[axis], atom.slopes[axis]);
    }
    return true;
  }

  OPENMM_GNN_HOST_DEVICE int64_t point(const MeshAtom& atom, int axis, int back) const {
    const int64_t size = sizes.of(axis), place = (atom.first[axis] - back) % size;
    return place < 0 ? place + size : place;
  }
};

template <typename T>
struct SpreadCharges {
  MeshAtoms<T> atoms;
  int64_t* grid;  // (a, b, c), zero at first
  int32_t* invalid;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    MeshAtom atom;
    if (!atoms.find(item / kMeshOrder, atom)) return;
    const int x = static_cast<int>(item % kMeshOrder);
    const float along = atom.charge * atom.weights[0][x];
    const int64_t plane = atoms.point(atom, 0, x) * atoms.sizes.b;
    for (int y = 0; y < kMeshOrder; ++y) {
      const int64_t row = (plane + atoms.point(atom, 1, y)) * atoms.sizes.c;
      for (int z = 0; z < kMeshOrder; ++z) {
        const float value = along * atom.weights[1][y] * atom.weights[2][z];
        if (!(value < kLargestCharge && value > -kLargestCharge)) {
          raise_flag(invalid);
          return;
        }
        atomic_add(grid + row + atoms.point(atom, 2, z), static_cast<int64_t>(value * kChargeSteps));
      }
    }
  }
};

struct GridToFloats {
  const int64_t* grid;
  float* values;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    values[item] = static_cast<float>(grid[item]) * (1.f / kChargeSteps);
  }
};

// Whole wave numbers of the points of an axis: 0, 1, .. and back to -1.
OPENMM_GNN_HOST_DEVICE double wave_number(int64_t point, int64_t size) {
  return static_cast<double>(point > size / 2 ? point - size : point);
}

OPENMM_GNN_HOST_DEVICE double cosine_of_turns(double turns) {
#if defined(__CUDA_ARCH__)
  return cospi(2. * turns);  // exact about the turn: no large angle has to be brought down
#else
  return cos(kTwoPi * turns);
#endif
}

// |b(m)|^2 of all points of the axes, one behind the other; eq. (4.4), (4.7), with the splines' values at whole numbers.
template <typename T>
struct MeshFactors {
  const Plan<T>* plan;
  MeshSizes sizes;
  double width;
  float* factors;  // (a + b + c,)
  int32_t* invalid;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    if (item == 0) check_points();
    const int axis = item < sizes.a ? 0 : item < sizes.a + sizes.b ? 1 : 2;
    const int64_t m = item - (axis > 0 ? sizes.a : 0) - (axis > 1 ? sizes.b : 0);
    const double cosine = cosine_of_turns(static_cast<double>(m) / static_cast<double>(sizes.of(axis)));
    const double sum = (66. + 52. * cosine + 2. * (2. * cosine * cosine - 1.)) / 120.;
    factors[item] = static_cast<float>(1. / (sum * sum));
  }

 private:
  OPENMM_GNN_HOST_DEVICE void check_points() const {
    for (int axis = 0; axis < 3; ++axis) {
      const double* v = plan->lattice.rows[axis];
      const double length = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      if (!(static_cast<double>(sizes.of(axis)) * width >= kFewestPoints * length)) raise_flag(invalid);
    }
  }
};

// From the transform's half of the waves to all of them, times the influence function, eq. (3.9) and (4.8):
// (4 pi / V k^2) exp(-k^2 w^2 / 2) |b|^2, and 0 at k = 0.
template <typename T>
struct MeshWaves {
  const Plan<T>* plan;
  MeshSizes sizes;
  double width;
  const float* factors;
  MeshTransform half;
  float* waves;  // (a, b, c) complex

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    int64_t c = item % sizes.c, b = item / sizes.c % sizes.b, a = item / (sizes.c * sizes.b);
    const bool mirrored = c >= sizes.half();
    if (mirrored) {  // charges are real: the wave of -k is the conjugate one
      a = a == 0 ? 0 : sizes.a - a;
      b = b == 0 ? 0 : sizes.b - b;
      c = sizes.c - c;
    }
    const float* from = half.at(a, b, c);
    const float scale = influence(a, b, c);
    waves[2 * item] = scale * from[0];
    waves[2 * item + 1] = mirrored ? -scale * from[1] : scale * from[1];
  }

 private:
  OPENMM_GNN_HOST_DEVICE float influence(int64_t a, int64_t b, int64_t c) const {
    if (a == 0 && b == 0 && c == 0) return 0.f;
    const Lattice& box = plan->lattice;
    const double m[3] = {wave_number(a, sizes.a), wave_number(b, sizes.b), static_cast<double>(c)};
    double squared = 0;
    for (int d = 0; d < 3; ++d) {
      const double k = kTwoPi * (m[0] * box.inverse[d][0] + m[1] * box.inverse[d][1] + m[2] * box.inverse[d][2]);
      squared += k * k;
    }
    const double(*v)[3] = box.rows;
    const double volume = fabs(v[0][0] * (v[1][1] * v[2][2] - v[1][2] * v[2][1]) +
                               v[0][1] * (v[1][2] * v[2][0] - v[1][0] * v[2][2]) +
                               v[0][2] * (v[1][0] * v[2][1] - v[1][1] * v[2][0]));
    const float wave = static_cast<float>(exp(-0.5 * width * width * squared) * (2 * kTwoPi) / (volume * squared));
    return wave * factors[a] * factors[sizes.a + b] * factors[sizes.a + sizes.b + c];
  }
};

template <typename T>
struct GatherCharges {
  static constexpr int kThreads = 128;
  struct Shared {
    int64_t energy[kThreads];
  };
  MeshAtoms<T> atoms;
  MeshTransform potential;
  FixedSums sums;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared& shared) const {
    const int64_t first = block.index() * kThreads;
    block.phase([&](int thread) {
      const int64_t n = first + thread;
      shared.energy[thread] = n < atoms.system.num_atoms ? sums.steps(push(n), kLargestForce) : 0;
    });
    block.each_thread([&](int thread) {
      if (thread != 0) return;
      int64_t total = 0;
      for (int other = 0; other < kThreads; ++other) total += shared.energy[other];
      if (total != 0) atomic_add(sums.energy, total);
    });
  }

 private:
  // Adds an atom's force; returns its energy.
  OPENMM_GNN_HOST_DEVICE float push(int64_t n) const {
    MeshAtom atom;
    if (!atoms.find(n, atom)) return 0.f;
    float energy = 0.f, along[3] = {0.f, 0.f, 0.f};
    for (int x = 0; x < kMeshOrder; ++x) {
      const int64_t a = atoms.point(atom, 0, x);
      for (int y = 0; y < kMeshOrder; ++y) {
        const int64_t b = atoms.point(atom, 1, y);
        float value = 0.f, slope = 0.f;
        for (int z = 0; z < kMeshOrder; ++z) {
          const float here = *potential.at(a, b, atoms.point(atom, 2, z));
          value += atom.weights[2][z] * here;
          slope += atom.slopes[2][z] * here;
        }
        energy += atom.weights[0][x] * atom.weights[1][y] * value;
        along[0] += atom.slopes[0][x] * atom.weights[1][y] * value;
        along[1] += atom.weights[0][x] * atom.slopes[1][y] * value;
        along[2] += atom.weights[0][x] * atom.weights[1][y] * slope;
      }
    }
    const Lattice& box = atoms.plan->lattice;
    float force[3];
    for (int d = 0; d < 3; ++d) {
      double gradient = 0;
      for (int axis = 0; axis < 3; ++axis) {
        gradient += along[axis] * static_cast<double>(atoms.sizes.of(axis)) * box.inverse[d][axis];
      }
      force[d] = static_cast<float>(-atom.charge * gradient);
    }
    sums.add(n, force, 1.f, kLargestForce);
    return 0.5f * atom.charge * energy;
  }
};

}  // namespace openmm_gnn::cuda
