// Smooth particle mesh electrostatics: charges to a grid, its transform times the influence function, forces from the
// potential. The formulas are those of openmm_gnn/kernels/particle_mesh.py, whose reference this must equal.
//
// Source: Essmann et al., J. Chem. Phys. 103, 8577 (1995), 10.1063/1.470117; numbers of equations are of this paper.
//
// An atom touches order^3 points: order^2 rows of the last axis, each of which is one addition of eight lanes in a plane
// that is padded where splines reach over its ends. Cost per atom at order 6: about 100 additions, 100 multiplications
// and as many instructions again for the splines. Atoms are taken in the order of their places, and a plane of the first
// axis is written by one thread alone: results are the same bits for any number of threads.
#pragma once

#include <torch/csrc/stable/tensor_struct.h>

#include <array>
#include <cstdint>

namespace openmm_gnn {

// Grid (K1, K2, K3) of the charges of positions (N, 3).
inline constexpr char kMeshCharges[] =
    "mesh_charges(Tensor positions, Tensor charges, Tensor box, int size_a, int size_b, int size_c, int order,"
    " int num_threads) -> Tensor";

// Multiplies a transform, real and imaginary parts (K1, K2, K3 / 2 + 1, 2), with the influence function in place.
inline constexpr char kMeshInfluence[] =
    "mesh_influence(Tensor(a!) transform, Tensor box, float width, int size_c, int order, int num_threads) -> ()";

// Forces (N, 3) and energy (1,) from the potential on the grid.
inline constexpr char kMeshForces[] =
    "mesh_forces(Tensor positions, Tensor charges, Tensor box, Tensor potential, int order, int num_threads)"
    " -> (Tensor forces, Tensor energy)";

struct Mesh {
  int64_t size[3];
  int64_t order;         // of the splines: 4, 6 or 8
  double inverse[3][4];  // of the box; its columns are the reciprocal vectors, the fourth is padding
  double volume;

  // Planes are padded to rows() x stride() points: (row, column) is (row - reach(), column - reach()) of the plane,
  // wrapped, and an atom's splines begin at the point before it.
  int64_t reach() const { return order - 1; }
  int64_t rows() const { return size[1] + order - 1; }
  int64_t stride() const { return size[2] + 8; }
  int64_t padded_points() const { return rows() * stride(); }
};

struct MeshCharges {
  int64_t count;
  const float *positions, *values;  // (N, 3), wrapped or not, and (N,)
};

// An atom's splines along the axes, x times its charge, and the first point of a padded plane that they reach.
struct SplinedCharge {
  float x[8], y[8], z[8];
  int64_t begin;
};

// One row of the transform: k^2 = constant + linear m + square m^2 at its points m.
struct InfluenceRow {
  float constant, linear, square;
  float scale, exponent;  // the influence is scale factor exp(exponent k^2) / k^2
};

constexpr int64_t kRowsPerBlock = 8;

// What is compiled for each instruction set.
struct ParticleMeshKernels {
  // Number of the block of each atom in [begin, end): kRowsPerBlock rows of one plane.
  void (*find_blocks)(const Mesh&, const MeshCharges&, int64_t begin, int64_t end, int32_t* blocks);
  // Splines of atoms[begin] .. atoms[end - 1].
  void (*find_splines)(const Mesh&, const MeshCharges&, const int32_t* atoms, int64_t begin, int64_t end,
                       SplinedCharge* splines);
  // Adds `count` charges to a padded plane, which their column `column` reaches.
  void (*spread)(const Mesh&, const SplinedCharge* splines, int64_t count, int64_t column, float* plane);
  // Forces on atoms[begin] .. atoms[end - 1] from padded planes of the potential; returns these atoms' energy.
  double (*gather)(const Mesh&, const MeshCharges&, const int32_t* atoms, int64_t begin, int64_t end,
                   const float* potential, float* forces);
  // Factors and values are padded to a multiple of sixteen.
  void (*find_influence)(const InfluenceRow&, const float* factors, int64_t count, float* values);
};

const ParticleMeshKernels& particle_mesh_kernels();

// All three operators with PyTorch's Fourier transforms in between: writes the forces (N, 3), returns the energy.
double mesh_energy_and_forces(const torch::stable::Tensor& positions, const torch::stable::Tensor& charges,
                              const torch::stable::Tensor& box, double width, const std::array<int64_t, 3>& sizes,
                              int64_t order, int64_t num_threads, float* forces);

}  // namespace openmm_gnn
