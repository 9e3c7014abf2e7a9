// neighbor_pairs: the kernels against the oracle.
#pragma once

#include "compare.h"

namespace testing {

int strands_of(uint64_t seed) { return 1 << (seed % 6); }

template <typename T>
void check_case(const Case& given, uint64_t seed, const char* what) {
  const double band = tolerance<T>(given);
  const SearchResult tiles = find<T>(given, Path::tiles, seed, strands_of(seed));
  const SearchResult cells = find<T>(given, Path::cells, seed + 1, strands_of(seed + 3), 3 + seed % 2);
  for (const SearchResult& result : {tiles, cells}) {
    REQUIRE(result.errors == 0, "%s: errors %ld at seed %lu", what, result.errors, seed);
    require_equal(result.pairs, given, band, what);
    for (size_t p = 1; p < result.pairs.size(); ++p) REQUIRE(result.pairs[p - 1].i <= result.pairs[p].i, "not by i");
    for (const Found& pair : result.pairs) REQUIRE(pair.distance <= given.cutoff, "a distance beyond the cutoff");
  }
  // Both ways to search judge every pair by the same bits, in whatever order the threads ran.
  REQUIRE(same_bits(sorted(tiles.pairs), sorted(cells.pairs)), "%s: tiles and cells differ, seed %lu", what, seed);
  const SearchResult again = find<T>(given, Path::cells, seed + 77, strands_of(seed + 3), 3 + seed % 2);
  REQUIRE(same_bits(again.pairs, cells.pairs), "%s: not the same for another order of threads, seed %lu", what, seed);
  const SearchResult tiles_again = find<T>(given, Path::tiles, seed + 78, strands_of(seed));
  REQUIRE(same_bits(tiles_again.pairs, tiles.pairs), "%s: not the same for another order of threads", what);
  // The half list and its mirror image are the full list, exactly.
  Case other = given;
  other.full = !given.full;
  const SearchResult counterpart = find<T>(other, Path::cells, seed + 2, 2);
  std::vector<Found> both = given.full ? counterpart.pairs : cells.pairs;
  for (const Found& pair : given.full ? counterpart.pairs : cells.pairs) {
    Found mirrored{pair.j, pair.i, {}, {}, pair.distance};
    for (int d = 0; d < 3; ++d) {
      mirrored.shift[d] = -pair.shift[d];
      mirrored.r[d] = -pair.r[d];
    }
    both.push_back(mirrored);
  }
  const std::vector<Found>& full = given.full ? cells.pairs : counterpart.pairs;
  REQUIRE(same_bits(sorted(both), sorted(full)), "%s: the halves are not the whole, seed %lu", what, seed);
}

void random_systems(uint64_t repetitions) {
  size_t pairs = 0;
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    systems::Random random(seed);
    const int64_t atoms = seed % 20 == 9 ? 200 : 40;
    if (seed % 2 == 0) {
      const Case given = systems::random_case<float>(random, atoms);
      check_case<float>(given, seed, "float32");
      pairs += find<float>(given, Path::cells, 0, 1).pairs.size();
    } else {
      check_case<double>(systems::random_case<double>(random, atoms), seed, "float64");
    }
  }
  REQUIRE(pairs > 10 * repetitions, "the systems hardly have pairs: %zu", pairs);  // else nothing was tested
}

Case liquid(uint64_t seed, int64_t atoms, double edge, double cutoff) {
  systems::Random random(seed);
  Case given;
  given.cutoff = cutoff;
  given.box = {{{edge, 0, 0}, {0.25 * edge, edge, 0}, {-0.125 * edge, 0.25 * edge, edge}}};
  for (int64_t atom = 0; atom < atoms; ++atom) {
    systems::Vector place{};
    for (int k = 0; k < 3; ++k) {
      const double fraction = systems::uniform(random, 0, 1);
      for (int d = 0; d < 3; ++d) place[d] += fraction * given.box[k][d];
    }
    for (double& value : place) value = static_cast<float>(value);
    given.positions.push_back(place);
  }
  return given;
}

void large_systems(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    Case given = liquid(seed, 2000, 3.5, 0.35);
    require_equal(find<float>(given, Path::cells, seed, 1).pairs, given, tolerance<float>(given), "2000 atoms");
    given.positions.resize(700);
    given.periodic = seed % 2 == 0;
    given.full = false;
    check_case<double>(given, 6, "700 atoms");
  }
}

// A cubic lattice with its spacing equal to the cutoff: exact in binary, so strict < leaves nothing.
void lattice_at_the_cutoff(uint64_t) {
  for (const bool periodic : {true, false}) {
    Case given;
    given.periodic = periodic;
    given.cutoff = 0.5;
    given.box = {{{2, 0, 0}, {0, 2, 0}, {0, 0, 2}}};
    for (int x = 0; x < 4; ++x) {
      for (int y = 0; y < 4; ++y) {
        for (int z = 0; z < 4; ++z) given.positions.push_back({0.5 * x - 4, 0.5 * y, 0.5 * z + 6});
      }
    }
    for (const Path path : {Path::tiles, Path::cells}) {
      REQUIRE(find<float>(given, path, 1, 8).pairs.empty(), "at the cutoff is not within it");
      REQUIRE(find<double>(given, path, 1, 8).pairs.empty(), "at the cutoff is not within it");
    }
    given.cutoff = 0.5000001;
    const size_t expected = periodic ? 64 * 6 : 3 * 2 * 48;
    for (const Path path : {Path::tiles, Path::cells}) {
      REQUIRE(find<double>(given, path, 1, 8).pairs.size() == expected, "six neighbours on a cubic lattice");
    }
  }
}

// Two atoms just within the cutoff along the normal of a face: the furthest that a search across the lattice planes has
// to look. A reach or a cell a thousandth too short misses them.
void pairs_along_the_normals(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    systems::Random random(seed);
    Case given;
    given.cutoff = systems::uniform(random, 0.5, 1.5);
    const double size = given.cutoff * systems::uniform(random, 0.4, 9);
    given.box = systems::random_box(random, size);
    for (auto& row : given.box) {
      for (double& value : row) value = static_cast<float>(value);
    }
    const systems::Matrix inverted = oracle::inverse(given.box);
    for (int k = 0; k < 3; ++k) {
      const double length = std::hypot(inverted[0][k], inverted[1][k], inverted[2][k]);
      for (const double sign : {-1.0, 1.0}) {
        systems::Vector start{}, end{};
        for (int d = 0; d < 3; ++d) {
          start[d] = static_cast<float>(systems::uniform(random, 0, size));
          end[d] = static_cast<float>(start[d] + sign * given.cutoff * (1 - 1e-4) * inverted[d][k] / length);
        }
        given.positions.push_back(start);
        given.positions.push_back(end);
      }
    }
    check_case<float>(given, seed, "along a normal");
  }
}

void one_atom_and_its_images(uint64_t) {
  Case given;
  given.positions = {{0.25, -7.5, 100.125}};
  given.box = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  given.cutoff = 3.1;
  check_case<float>(given, 3, "one atom");
  // Integer vectors shorter than 3.1: the lattice points in a ball, less the origin.
  size_t expected = 0;
  for (int x = -3; x <= 3; ++x) {
    for (int y = -3; y <= 3; ++y) {
      for (int z = -3; z <= 3; ++z) expected += x * x + y * y + z * z < 9.61 ? 1 : 0;
    }
  }
  REQUIRE(find<float>(given, Path::cells, 3, 1).pairs.size() == expected - 1, "lattice points in a ball");
}

void open_boundaries(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    systems::Random random(seed);
    Case given;
    given.periodic = false;
    given.cutoff = 0.7;
    const int axis = static_cast<int>(seed % 3);
    for (int atom = 0; atom < 60; ++atom) {  // a rod, much longer than the ring of cells
      systems::Vector place{};
      for (double& value : place) value = static_cast<float>(systems::uniform(random, -0.5, 0.5));
      place[axis] = static_cast<float>(systems::uniform(random, -20, 20));
      given.positions.push_back(place);
    }
    given.positions.push_back({1e30, -1e30, 0});  // flown off
    given.positions.push_back({1e30, -1e30, 0.5});
    given.positions.push_back({-1e5, 1e5, 1e5});
    const SearchResult cells = find<float>(given, Path::cells, seed, 1);
    REQUIRE(cells.errors == 0, "far is not wrong");
    REQUIRE(std::any_of(cells.pairs.begin(), cells.pairs.end(), [](const Found& p) { return p.i == 60 && p.j == 61; }),
            "two atoms that flew off together are still a pair");
    given.positions.resize(60);
    check_case<float>(given, seed, "rod");
    check_case<double>(given, seed, "rod");
  }
}

void bad_input(uint64_t) {
  for (const Path path : {Path::tiles, Path::cells}) {
    for (const double bad : {double(NAN), double(INFINITY), -double(INFINITY), 1e30}) {
      Case given = liquid(1, 100, 2, 0.4);
      given.positions[71][1] = bad;
      given.positions[40][2] = bad;
      const SearchResult result = find<float>(given, path, 9, 4);
      REQUIRE(result.errors == openmm_gnn::kErrorPositions && result.bad_atom == 40, "atom %ld, errors %ld",
              result.bad_atom, result.errors);
      for (const Found& pair : result.pairs) REQUIRE(pair.i != 40 && pair.j != 71, "a pair with a bad atom");
      if (std::isfinite(bad)) continue;
      given.periodic = false;
      REQUIRE(find<double>(given, path, 9, 4).bad_atom == 40, "open boundary");
    }
    Case given = liquid(1, 20, 2, 0.4);
    for (auto& position : given.positions) position = {NAN, NAN, NAN};
    REQUIRE(find<float>(given, path, 9, 4).bad_atom == 0, "all bad");
    given = liquid(1, 20, 2, 0.4);
    given.box[2] = given.box[1];
    REQUIRE(find<float>(given, path, 9, 4).errors == openmm_gnn::kErrorBox, "a flat box");
    given.box[2][0] = NAN;
    REQUIRE(find<float>(given, path, 9, 4).errors == openmm_gnn::kErrorBox, "a box of NaN");
    given.box = {{{1e-3, 0, 0}, {0, 1e-3, 0}, {0, 0, 1e-3}}};
    REQUIRE(find<float>(given, path, 9, 4).errors == openmm_gnn::kErrorImages, "a million images");
    given.positions.clear();
    given.box = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    const SearchResult nothing = find<float>(given, path, 9, 4);
    REQUIRE(nothing.errors == 0 && nothing.pairs.empty(), "no atoms");
  }
}

}  // namespace testing
