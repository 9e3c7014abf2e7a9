// Compares what the kernels found with the truth.
#pragma once

#include <cmath>
#include <limits>

#include "run_kernels.h"

namespace testing {

// How far a distance may be off: rounding of wrapped positions (type T) or of the oracle's own sums (double).
template <typename T>
double tolerance(const Case& given) {
  double reach = given.cutoff;
  if (given.periodic) {
    for (const auto& row : given.box) reach += std::fabs(row[0]) + std::fabs(row[1]) + std::fabs(row[2]);
  }
  double furthest = 0;
  for (const auto& position : given.positions) {
    for (const double value : position) furthest = std::max(furthest, std::fabs(value));
  }
  return 8 * std::numeric_limits<T>::epsilon() * reach +
         32 * std::numeric_limits<double>::epsilon() * (furthest + reach);
}

// Of the two directions of a pair the half list keeps this one.
template <class AnyPair>
bool kept_in_half_list(const AnyPair& pair) {
  const std::array<int64_t, 3> zero{};
  return pair.i < pair.j || (pair.i == pair.j && pair.shift > zero);
}

// `found` is the list for given.cutoff, but for pairs closer to the cutoff than `band`.
inline void require_equal(std::vector<Found> found, const Case& given, double band, const char* what) {
  std::vector<oracle::Pair> truth =
      oracle::all_pairs(given.positions, given.periodic ? &given.box : nullptr, given.cutoff + band);
  if (!given.full) {
    truth.erase(std::remove_if(truth.begin(), truth.end(), [](const auto& pair) { return !kept_in_half_list(pair); }),
                truth.end());
  }
  const auto by_key = [](const auto& a, const auto& b) { return a.key() < b.key(); };
  std::sort(found.begin(), found.end(), by_key);
  std::sort(truth.begin(), truth.end(), by_key);
  for (size_t p = 1; p < found.size(); ++p) {
    REQUIRE(found[p - 1].key() != found[p].key(), "%s: pair %ld, %ld twice", what, found[p].i, found[p].j);
  }
  size_t next = 0;
  for (const Found& pair : found) {
    while (next < truth.size() && truth[next].key() < pair.key()) {
      REQUIRE(truth[next].distance >= given.cutoff - band, "%s: missed %ld, %ld at %.17g, cutoff %.17g", what,
              truth[next].i, truth[next].j, truth[next].distance, given.cutoff);
      ++next;
    }
    REQUIRE(next < truth.size() && truth[next].key() == pair.key(), "%s: %ld, %ld (%ld %ld %ld) is no pair, %.17g",
            what, pair.i, pair.j, pair.shift[0], pair.shift[1], pair.shift[2], pair.distance);
    const oracle::Pair& right = truth[next++];
    REQUIRE(std::fabs(pair.distance - right.distance) <= band, "%s: distance %.17g, not %.17g", what, pair.distance,
            right.distance);
    for (int d = 0; d < 3; ++d) {
      REQUIRE(std::fabs(pair.r[d] - right.r[d]) <= band, "%s: vector %.17g, not %.17g", what, pair.r[d], right.r[d]);
    }
  }
  for (; next < truth.size(); ++next) {
    REQUIRE(truth[next].distance >= given.cutoff - band, "%s: missed %ld, %ld at %.17g", what, truth[next].i,
            truth[next].j, truth[next].distance);
  }
}

inline bool same_bits(const std::vector<Found>& a, const std::vector<Found>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Found& x, const Found& y) {
    return x.key() == y.key() && x.r == y.r && x.distance == y.distance;
  });
}

inline std::vector<Found> sorted(std::vector<Found> pairs) {
  std::sort(pairs.begin(), pairs.end(), [](const Found& a, const Found& b) { return a.key() < b.key(); });
  return pairs;
}

}  // namespace testing
