// The truth for the kernels' tests: every pair and image by direct sum, in double precision, sharing no code with the
// library.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace oracle {

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

struct Pair {
  int64_t i, j;
  std::array<int64_t, 3> shift;
  Vector r;
  double distance;
  auto key() const { return std::make_tuple(i, j, shift[0], shift[1], shift[2]); }
};

// Gauss-Jordan elimination with partial pivoting.
inline Matrix inverse(Matrix a) {
  Matrix result{};
  for (int k = 0; k < 3; ++k) result[k][k] = 1;
  for (int column = 0; column < 3; ++column) {
    int pivot = column;
    for (int row = column + 1; row < 3; ++row) {
      if (std::fabs(a[row][column]) > std::fabs(a[pivot][column])) pivot = row;
    }
    std::swap(a[column], a[pivot]);
    std::swap(result[column], result[pivot]);
    const double scale = a[column][column];
    for (int k = 0; k < 3; ++k) {
      a[column][k] /= scale;
      result[column][k] /= scale;
    }
    for (int row = 0; row < 3; ++row) {
      if (row == column) continue;
      const double factor = a[row][column];
      for (int k = 0; k < 3; ++k) {
        a[row][k] -= factor * a[column][k];
        result[row][k] -= factor * result[column][k];
      }
    }
  }
  return result;
}

// All ordered pairs closer than `cutoff`. box == nullptr: open boundary.
inline std::vector<Pair> all_pairs(const std::vector<Vector>& positions, const Matrix* box, double cutoff) {
  std::vector<Pair> pairs;
  Matrix inverted{};
  Vector span{};  // how many translations along each vector the cutoff can cover
  if (box != nullptr) {
    inverted = inverse(*box);
    for (int k = 0; k < 3; ++k) {
      span[k] = cutoff * std::sqrt(inverted[0][k] * inverted[0][k] + inverted[1][k] * inverted[1][k] +
                                   inverted[2][k] * inverted[2][k]);
    }
  }
  const int64_t atoms = static_cast<int64_t>(positions.size());
  for (int64_t i = 0; i < atoms; ++i) {
    for (int64_t j = 0; j < atoms; ++j) {
      Vector d;
      for (int axis = 0; axis < 3; ++axis) d[axis] = positions[j][axis] - positions[i][axis];
      std::array<int64_t, 3> low{}, high{};
      for (int k = 0; k < 3 && box != nullptr; ++k) {
        const double fraction = d[0] * inverted[0][k] + d[1] * inverted[1][k] + d[2] * inverted[2][k];
        low[k] = static_cast<int64_t>(std::floor(-fraction - span[k] - 1e-6));
        high[k] = static_cast<int64_t>(std::ceil(-fraction + span[k] + 1e-6));
      }
      for (int64_t a = low[0]; a <= high[0]; ++a) {
        for (int64_t b = low[1]; b <= high[1]; ++b) {
          for (int64_t c = low[2]; c <= high[2]; ++c) {
            if (i == j && a == 0 && b == 0 && c == 0) continue;
            Vector r = d;
            for (int axis = 0; axis < 3 && box != nullptr; ++axis) {
              r[axis] += a * (*box)[0][axis] + b * (*box)[1][axis] + c * (*box)[2][axis];
            }
            const double distance = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
            if (distance < cutoff) pairs.push_back({i, j, {a, b, c}, r, distance});
          }
        }
      }
    }
  }
  return pairs;
}

}  // namespace oracle
