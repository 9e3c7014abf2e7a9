// The operators of particle_mesh.h: checks, the order of atoms, planes among threads, and the influence function's rows.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/arguments.h"
#include "base/boxed.h"
#include "base/cpu/buffer.h"
#include "base/cpu/threads.h"
#include "mesh/cpu/particle_mesh.h"
#include "neighbors/cpu/system_of.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kAtomsPerThread = 2000;  // below these, starting a thread costs more than it saves
constexpr int64_t kPointsPerThread = 100000;
constexpr int64_t kAtomsPerChunk = 256;
constexpr double kTwoPi = 6.283185307179586;

// ---- what comes in --------------------------------------------------------------------------------------------------

Mesh checked_mesh(const CheckedArguments& given, const Tensor& box, int64_t size_a, int64_t size_b, int64_t size_c, int64_t order) {
  check(box.dim() == 2 && box.size(0) == 3 && box.size(1) == 3 && is_float32(box),
        "box has shape " + shape_text(box) + ": give (3, 3), rows a, b, c, float32");
  given.check_device(box, "box");
  check(order == 4 || order == 6 || order == 8, "order is " + std::to_string(order) + ": give 4, 6 or 8");
  Mesh mesh{{size_a, size_b, size_c}, order, {}, 0};
  for (int64_t size : mesh.size) {
    check(size >= 1 && size <= 4096, "a grid of " + std::to_string(size_a) + " x " + std::to_string(size_b) + " x " +
                                         std::to_string(size_c) + " points: give 1 to 4096 along each vector");
  }
  double v[3][3];
  for (int row = 0; row < 3; ++row) {
    for (int d = 0; d < 3; ++d) v[row][d] = data<float>(box)[row * box.stride(0) + d * box.stride(1)];
  }
  double determinant = 0;
  for (int row = 0; row < 3; ++row) {
    const double *next = v[(row + 1) % 3], *last = v[(row + 2) % 3];
    for (int d = 0; d < 3; ++d) {
      mesh.inverse[d][row] = next[(d + 1) % 3] * last[(d + 2) % 3] - next[(d + 2) % 3] * last[(d + 1) % 3];
      if (row == 0) determinant += v[0][d] * mesh.inverse[d][0];
    }
  }
  check(std::abs(determinant) > 0 && std::isfinite(determinant),
        "the box has volume " + std::to_string(determinant) + ": give three vectors that span one");
  for (auto& row : mesh.inverse) {
    for (double& value : row) value /= determinant;
  }
  mesh.volume = std::abs(determinant);
  return mesh;
}

void check_charge_width(double width) {
  check(width > 0 && width < 1e18, "width is " + std::to_string(width) + ": give a length above 0");
}

MeshCharges checked_charges(const CheckedArguments& given, const Tensor& positions, const Tensor& charges) {
  const float* places = given.get<float>(positions, "positions", {kAny, 3});
  const int64_t count = positions.size(0);
  check(count < (int64_t(1) << 30),
        "positions holds " + std::to_string(count) + " atoms: at most 2^30 - 1 are supported");
  return {count, places, given.get<float>(charges, "charges", {count})};
}

// ---- the order of atoms ---------------------------------------------------------------------------------------------

// By plane of the first axis, then by block of rows. Those of plane p are atoms[starts[p]] .. atoms[starts[p + 1]].
struct SortedAtoms {
  std::vector<int64_t> starts;
  std::vector<int32_t> atoms;
};

SortedAtoms sorted_atoms(const Mesh& mesh, const MeshCharges& charges, int threads) {
  const int64_t per_plane = (mesh.size[1] + kRowsPerBlock - 1) / kRowsPerBlock;
  std::vector<int32_t> blocks(static_cast<size_t>(charges.count));
  for_parts(threads, charges.count, [&](int, int64_t begin, int64_t end) {
    particle_mesh_kernels().find_blocks(mesh, charges, begin, end, blocks.data());
  });
  std::vector<int64_t> next(static_cast<size_t>(mesh.size[0] * per_plane + 1));
  for (int32_t block : blocks) ++next[static_cast<size_t>(block) + 1];
  for (size_t b = 1; b < next.size(); ++b) next[b] += next[b - 1];
  SortedAtoms sorted{std::vector<int64_t>(static_cast<size_t>(mesh.size[0]) + 1), std::vector<int32_t>(blocks.size())};
  for (size_t p = 0; p < sorted.starts.size(); ++p) sorted.starts[p] = next[p * static_cast<size_t>(per_plane)];
  for (size_t n = 0; n < blocks.size(); ++n) sorted.atoms[next[blocks[n]]++] = static_cast<int32_t>(n);
  return sorted;
}

// ---- padded planes --------------------------------------------------------------------------------------------------

int64_t wrapped(int64_t index, int64_t size) {
  index %= size;
  return index < 0 ? index + size : index;
}

// Calls body(point of the padded plane, point of the plane, count) for pieces of rows without a wrap.
template <typename Body>
void for_pieces(const Mesh& mesh, const Body& body) {
  const int64_t points = mesh.size[2], stride = mesh.stride();
  for (int64_t row = 0; row < mesh.rows(); ++row) {
    const int64_t plane_row = wrapped(row - mesh.reach(), mesh.size[1]);
    for (int64_t column = 0; column < stride;) {
      const int64_t place = wrapped(column - mesh.reach(), points), count = std::min(points - place, stride - column);
      body(row * stride + column, plane_row * points + place, count);
      column += count;
    }
  }
}

void spread_charges(const Mesh& mesh, const MeshCharges& charges, int64_t num_threads, float* grid) {
  const ParticleMeshKernels& kernels = particle_mesh_kernels();
  const int threads = threads_for(num_threads, charges.count, kAtomsPerThread);
  const SortedAtoms sorted = sorted_atoms(mesh, charges, threads);
  std::vector<SplinedCharge> splines(static_cast<size_t>(charges.count));
  for_parts(threads, charges.count, [&](int, int64_t begin, int64_t end) {
    kernels.find_splines(mesh, charges, sorted.atoms.data(), begin, end, splines.data());
  });
  std::vector<std::vector<float>> copies(static_cast<size_t>(threads));
  for_chunks(threads, mesh.size[0], 1, [&](int thread, int64_t p, int64_t) {
    std::vector<float>& padded = copies[thread];
    padded.assign(static_cast<size_t>(mesh.padded_points()), 0.f);
    for (int64_t column = 0; column < mesh.order; ++column) {
      const int64_t source = (p + mesh.reach() - column) % mesh.size[0];
      const int64_t begin = sorted.starts[source];
      kernels.spread(mesh, splines.data() + begin, sorted.starts[source + 1] - begin, column, padded.data());
    }
    const int64_t points = mesh.size[1] * mesh.size[2];
    float* plane = grid + p * points;
    std::memset(plane, 0, sizeof(float) * static_cast<size_t>(points));
    for_pieces(mesh, [&](int64_t from, int64_t to, int64_t count) {
      for (int64_t n = 0; n < count; ++n) plane[to + n] += padded[from + n];
    });
  });
}

double gather_forces(const Mesh& mesh, const MeshCharges& charges, int64_t num_threads, const float* potential,
                     float* forces) {
  const ParticleMeshKernels& kernels = particle_mesh_kernels();
  const int threads = threads_for(num_threads, charges.count, kAtomsPerThread);
  const SortedAtoms sorted = sorted_atoms(mesh, charges, threads);
  Buffer<float> padded;
  padded.reserve(mesh.size[0] * mesh.padded_points());
  for_parts(threads, mesh.size[0], [&](int, int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const float* plane = potential + p * mesh.size[1] * mesh.size[2];
      float* copy = padded.get() + p * mesh.padded_points();
      for_pieces(mesh, [&](int64_t to, int64_t from, int64_t count) {
        std::memcpy(copy + to, plane + from, sizeof(float) * static_cast<size_t>(count));
      });
    }
  });
  std::vector<double> energies(static_cast<size_t>(charges.count / kAtomsPerChunk + 1));
  for_chunks(threads, charges.count, kAtomsPerChunk, [&](int, int64_t begin, int64_t end) {
    energies[begin / kAtomsPerChunk] =
        kernels.gather(mesh, charges, sorted.atoms.data(), begin, end, padded.get(), forces);
  });
  double energy = 0;
  for (double part : energies) energy += part;
  return energy;
}

// ---- the influence function -----------------------------------------------------------------------------------------

// Whole wave numbers of the points of the first two axes: 0, 1, .. and back to -1.
double wave_number(int64_t point, int64_t size) {
  return static_cast<double>(point > size / 2 ? point - size : point);
}

// |b(m)|^2 of an axis from the splines' values at whole numbers; eq. (4.4), (4.7). Padded to a multiple of sixteen.
// Splines of even order are symmetric about a whole number: the sum is one of cosines, and never 0.
std::vector<float> axis_factors(int64_t order, int64_t size, int64_t count) {
  std::vector<double> knots{0.0, 1.0};  // M_2(0), M_2(1)
  for (int64_t n = 3; n <= order; ++n) {
    knots.push_back(0);
    for (int64_t k = n - 1; k > 0; --k) {
      knots[k] = (static_cast<double>(k) * knots[k] + static_cast<double>(n - k) * knots[k - 1]) /
                 static_cast<double>(n - 1);
    }
  }
  std::vector<float> factors(static_cast<size_t>((count + 15) / 16 * 16), 0.f);
  for (int64_t m = 0; m < count; ++m) {
    const double angle = kTwoPi * static_cast<double>(m) / static_cast<double>(size);
    double sum = knots[order / 2];
    for (int64_t k = 1; k < order / 2; ++k) sum += 2 * knots[order / 2 + k] * std::cos(angle * static_cast<double>(k));
    factors[m] = static_cast<float>(1 / (sum * sum));
  }
  return factors;
}

// Multiplies the transform with eq. (3.9) and (4.8): (4 pi / V k^2) exp(-k^2 w^2 / 2) |b|^2, and with 0 at k = 0.
void multiply_influence(const Mesh& mesh, double width, int64_t num_threads, float* transform) {
  const int64_t half = mesh.size[2] / 2 + 1, rows = mesh.size[0] * mesh.size[1];
  const std::vector<float> along_a = axis_factors(mesh.order, mesh.size[0], mesh.size[0]),
                           along_b = axis_factors(mesh.order, mesh.size[1], mesh.size[1]),
                           along_c = axis_factors(mesh.order, mesh.size[2], half);
  const auto metric = [&](int first, int second) {
    double product = 0;
    for (int d = 0; d < 3; ++d) product += mesh.inverse[d][first] * mesh.inverse[d][second];
    return kTwoPi * kTwoPi * product;
  };
  const double aa = metric(0, 0), bb = metric(1, 1), cc = metric(2, 2);
  const double ab = metric(0, 1), ac = metric(0, 2), bc = metric(1, 2);
  for_parts(threads_for(num_threads, rows * half, kPointsPerThread), rows, [&](int, int64_t begin, int64_t end) {
    std::vector<float> values(along_c.size());
    for (int64_t n = begin; n < end; ++n) {
      const int64_t a = n / mesh.size[1], b = n % mesh.size[1];
      const double m_a = wave_number(a, mesh.size[0]), m_b = wave_number(b, mesh.size[1]);
      InfluenceRow row;
      row.constant = static_cast<float>(aa * m_a * m_a + bb * m_b * m_b + 2 * ab * m_a * m_b);
      row.linear = static_cast<float>(2 * (ac * m_a + bc * m_b));
      row.square = static_cast<float>(cc);
      row.scale = static_cast<float>(2 * kTwoPi / mesh.volume) * along_a[a] * along_b[b];
      row.exponent = static_cast<float>(-0.5 * width * width);
      particle_mesh_kernels().find_influence(row, along_c.data(), half, values.data());
      if (n == 0) values[0] = 0;
      float* points = transform + 2 * n * half;
      for (int64_t m = 0; m < half; ++m) {
        points[2 * m] *= values[m];
        points[2 * m + 1] *= values[m];
      }
    }
  });
}

// ---- operators ------------------------------------------------------------------------------------------------------

Tensor mesh_charges_cpu(const Tensor& positions, const Tensor& charges, const Tensor& box, int64_t size_a,
                        int64_t size_b, int64_t size_c, int64_t order, int64_t num_threads) {
  const CheckedArguments given(positions, "positions");
  const MeshCharges atoms = checked_charges(given, positions, charges);
  const Mesh mesh = checked_mesh(given, box, size_a, size_b, size_c, order);
  const Tensor grid = empty(positions, {size_a, size_b, size_c}, aoti_torch_dtype_float32());
  spread_charges(mesh, atoms, num_threads, large_data<float>(grid));
  return grid;
}

void mesh_influence_cpu(const Tensor& transform, const Tensor& box, double width, int64_t size_c, int64_t order,
                        int64_t num_threads) {
  const CheckedArguments given(transform, "transform");
  float* values = given.get<float>(transform, "transform", {kAny, kAny, size_c / 2 + 1, 2});
  check_charge_width(width);
  const Mesh mesh = checked_mesh(given, box, transform.size(0), transform.size(1), size_c, order);
  multiply_influence(mesh, width, num_threads, values);
}

std::tuple<Tensor, Tensor> mesh_forces_cpu(const Tensor& positions, const Tensor& charges, const Tensor& box,
                                           const Tensor& potential, int64_t order, int64_t num_threads) {
  const CheckedArguments given(positions, "positions");
  const MeshCharges atoms = checked_charges(given, positions, charges);
  const float* values = given.get<float>(potential, "potential", {kAny, kAny, kAny});
  const Mesh mesh = checked_mesh(given, box, potential.size(0), potential.size(1), potential.size(2), order);
  const Tensor forces = empty(positions, {atoms.count, 3}, aoti_torch_dtype_float32());
  const Tensor energy = empty(positions, {1}, aoti_torch_dtype_float32());
  *data<float>(energy) = static_cast<float>(gather_forces(mesh, atoms, num_threads, values, data<float>(forces)));
  return {forces, energy};
}

// A transform's numbers, which PyTorch may lay out as it likes.
struct Transform {
  Tensor tensor;

  float* at(int64_t a, int64_t b, int64_t c) const {
    return static_cast<float*>(tensor.data_ptr()) + 2 * (a * tensor.stride(0) + b * tensor.stride(1) + c * tensor.stride(2));
  }
};

// The potential on the grid, which holds the charges. There is no transform back to real numbers in the stable interface,
// so the waves that those of real numbers leave out are filled in.
void transform_to_potential(const Mesh& mesh, double width, int64_t num_threads, const Tensor& grid) {
  const int64_t *size = mesh.size, half = size[2] / 2 + 1, axes[3] = {0, 1, 2};
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu__fft_r2c(grid.get(), axes, 3, 0, 1, &handle));
  const Transform forth{Tensor(handle)};
  std::vector<float> waves(static_cast<size_t>(2 * size[0] * size[1] * half));
  const auto row = [&](int64_t a, int64_t b) { return waves.data() + 2 * (a * size[1] + b) * half; };
  const auto for_rows = [&](const auto& body) {
    for (int64_t n = 0; n < size[0] * size[1]; ++n) body(n / size[1], n % size[1]);
  };
  for_rows([&](int64_t a, int64_t b) {
    for (int64_t c = 0; c < half; ++c) std::memcpy(row(a, b) + 2 * c, forth.at(a, b, c), 2 * sizeof(float));
  });
  multiply_influence(mesh, width, num_threads, waves.data());
  const Transform all{empty(grid, {size[0], size[1], size[2]}, aoti_torch_dtype_complex64())};
  for_rows([&](int64_t a, int64_t b) {
    float* to = all.at(a, b, 0);
    std::memcpy(to, row(a, b), static_cast<size_t>(2 * half) * sizeof(float));
    const float* mirrored = row(wrapped(-a, size[0]), wrapped(-b, size[1]));
    for (int64_t c = half; c < size[2]; ++c) {
      to[2 * c] = mirrored[2 * (size[2] - c)];
      to[2 * c + 1] = -mirrored[2 * (size[2] - c) + 1];
    }
  });
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu__fft_c2c(all.tensor.get(), axes, 3, 0, 0, &handle));
  const Transform back{Tensor(handle)};
  float* potential = data<float>(grid);
  for_rows([&](int64_t a, int64_t b) {
    for (int64_t c = 0; c < size[2]; ++c) potential[(a * size[1] + b) * size[2] + c] = *back.at(a, b, c);
  });
}

}  // namespace

double mesh_energy_and_forces(const Tensor& positions, const Tensor& charges, const Tensor& box, double width,
                              const std::array<int64_t, 3>& sizes, int64_t order, int64_t num_threads, float* forces) {
  check_charge_width(width);
  const CheckedArguments given(positions, "positions");
  const MeshCharges atoms = checked_charges(given, positions, charges);
  const Mesh mesh = checked_mesh(given, box, sizes[0], sizes[1], sizes[2], order);
  const Tensor grid = mesh_charges_cpu(positions, charges, box, sizes[0], sizes[1], sizes[2], order, num_threads);
  transform_to_potential(mesh, width, num_threads, grid);
  return gather_forces(mesh, atoms, num_threads, data<float>(grid), forces);
}

OPENMM_GNN_CPU_OPERATORS(library) {
  implement<kMeshCharges, mesh_charges_cpu>(library);
  implement<kMeshInfluence, mesh_influence_cpu>(library);
  implement<kMeshForces, mesh_forces_cpu>(library);
}

}  // namespace openmm_gnn
