// Random systems: every shape of cell, and atoms in the places that have broken neighbour lists before.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "oracle.h"

namespace systems {

using oracle::Matrix;
using oracle::Vector;
using Random = std::mt19937_64;

struct Case {
  std::vector<Vector> positions;  // exactly representable in the type under test
  Matrix box{};
  bool periodic = true;
  double cutoff = 1;
  bool full = true;
};

inline double uniform(Random& random, double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random);
}

inline int64_t integer(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

inline Matrix rotation(Random& random) {
  // From a random unit quaternion.
  std::normal_distribution<double> normal;
  double q[4], length = 0;
  for (double& value : q) {
    value = normal(random);
    length += value * value;
  }
  for (double& value : q) value /= std::sqrt(length);
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  return {{{1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)},
           {2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)},
           {2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)}}};
}

inline Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result{};
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 3; ++k) result[i][j] += a[i][k] * b[k][j];
    }
  }
  return result;
}

// Orthorhombic, flat, thin, reduced triclinic, strongly skewed, rotated or left-handed; edges of `size` or so.
inline Matrix random_box(Random& random, double size) {
  Matrix box{};
  for (int k = 0; k < 3; ++k) box[k][k] = size * uniform(random, 0.7, 1.4);
  const int64_t kind = integer(random, 0, 6);
  if (kind == 1) box[integer(random, 0, 2)][0] *= 1, box[2][2] *= 0.15;  // flat
  if (kind == 2) box[0][0] *= 0.2, box[1][1] *= 0.2;                     // thin
  if (kind >= 3) {
    const double skew = kind == 4 ? 2.5 : 0.5;  // reduced cells stay below half an edge; 2.5 is far beyond 30 degrees
    box[1][0] = uniform(random, -skew, skew) * box[0][0];
    box[2][0] = uniform(random, -skew, skew) * box[0][0];
    box[2][1] = uniform(random, -skew, skew) * box[1][1];
  }
  if (kind >= 5) box = product(box, rotation(random));
  if (kind == 6) std::swap(box[0], box[2]);  // left-handed
  return box;
}

template <typename T>
Case random_case(Random& random, int64_t max_atoms) {
  Case result;
  result.full = integer(random, 0, 1) == 1;
  result.periodic = integer(random, 0, 4) != 0;
  result.cutoff = uniform(random, 0.5, 1.5);
  const int64_t atoms = integer(random, 0, max_atoms);
  // From cells of a third of the cutoff to dilute gases.
  double size = result.cutoff * std::exp(uniform(random, std::log(0.34), std::log(8.0)));
  // A small box repeats every atom: keep the pairs in the thousands.
  int64_t count = atoms;
  while (count > 1 && static_cast<double>(count) * count * 5 * std::pow(result.cutoff / size, 3) > 6000) count /= 2;
  result.box = random_box(random, size);
  for (Vector& row : result.box) {
    for (double& value : row) value = static_cast<T>(value);
  }
  const int64_t places = integer(random, 0, 5);
  for (int64_t atom = 0; atom < count; ++atom) {
    Vector fraction{};
    for (double& f : fraction) f = uniform(random, 0, 1);
    if (places == 1) fraction[integer(random, 0, 2)] = 0;                       // on a face
    if (places == 2) fraction[integer(random, 0, 2)] = -1e-12;                  // just below it
    if (places == 3) for (double& f : fraction) f = 0.4 + 0.01 * f;             // all in one cell
    if (places == 4) for (double& f : fraction) f += integer(random, -5, 5);    // boxes away
    Vector position{};
    for (int d = 0; d < 3; ++d) {
      for (int k = 0; k < 3; ++k) position[d] += fraction[k] * result.box[k][d];
      position[d] = static_cast<T>(position[d]);
    }
    const bool coincident = places == 5 && atom > 0 && atom % 3 == 0;
    if (coincident) position = result.positions[static_cast<size_t>(atom - 1)];
    result.positions.push_back(position);
  }
  return result;
}

}  // namespace systems
