// update_neighbor_list: the kernels through many steps, against the oracle and a model of when to rebuild.
#pragma once

#include "compare.h"

namespace testing {

using namespace openmm_gnn;

// What the list should do, kept apart from it.
struct RebuildModel {
  std::vector<systems::Vector> reference;
  systems::Matrix box{};
  bool periodic = false, empty = true;
  int64_t rebuilds = 0;

  // Largest motion since the reference, lattice translations left out.
  double largest_motion(const Case& given) const {
    double largest = 0;
    const systems::Matrix inverted = oracle::inverse(given.box);
    for (size_t atom = 0; atom < reference.size(); ++atom) {
      systems::Vector d;
      for (int axis = 0; axis < 3; ++axis) d[axis] = given.positions[atom][axis] - reference[atom][axis];
      systems::Vector whole{};
      for (int k = 0; k < 3 && given.periodic; ++k) {
        whole[k] = std::round(d[0] * inverted[0][k] + d[1] * inverted[1][k] + d[2] * inverted[2][k]);
      }
      double squared = 0;
      for (int axis = 0; axis < 3; ++axis) {
        for (int k = 0; k < 3; ++k) d[axis] -= whole[k] * given.box[k][axis];
        squared += d[axis] * d[axis];
      }
      largest = std::max(largest, std::sqrt(squared));
    }
    return largest;
  }

  // Follows one call. Where the motion is too close to the threshold to call, it believes the list.
  void step(const Case& given, double skin, int64_t rebuilds_now) {
    bool rebuild = empty || periodic != given.periodic || (periodic && box != given.box);
    if (!rebuild) {
      const double motion = largest_motion(given);
      const bool close_call = std::fabs(motion - skin / 2) < 1e-5 + 3e-4 * skin;  // its own margin, and rounding
      rebuild = close_call ? rebuilds_now > rebuilds : motion > skin / 2;
    }
    if (rebuild) {
      ++rebuilds;
      reference = given.positions;
      box = given.box;
      periodic = given.periodic;
      empty = false;
    }
  }
};

template <typename T>
void round_positions(Case& given) {
  for (auto& position : given.positions) {
    for (double& value : position) value = static_cast<T>(value);
  }
  for (auto& row : given.box) {
    for (double& value : row) value = static_cast<T>(value);
  }
}

// Slots beyond the stored pairs hold padding; the stored ones are pairs of the list within cutoff + skin and no other.
void check_padding(std::vector<Found> slots, const Case& given, double skin, int64_t stored, double band) {
  const double far = 2 * (given.cutoff + skin);
  for (size_t slot = static_cast<size_t>(stored); slot < slots.size(); ++slot) {
    const Found& pad = slots[slot];
    REQUIRE(pad.i == -1 && pad.j == -1 && pad.shift == (std::array<int64_t, 3>{}), "padding of slot %zu", slot);
    REQUIRE(std::fabs(pad.distance - far) <= band, "padding lies at %g, not %g", pad.distance, far);
    REQUIRE(pad.r[0] == pad.distance && pad.r[1] == 0 && pad.r[2] == 0, "padding lies along x");
  }
  slots.resize(static_cast<size_t>(stored));
  for (size_t p = 1; p < slots.size(); ++p) REQUIRE(slots[p - 1].i <= slots[p].i, "not by i");
  const auto beyond = [&](const Found& pair) { return pair.distance >= given.cutoff; };
  slots.erase(std::remove_if(slots.begin(), slots.end(), beyond), slots.end());
  require_equal(slots, given, band, "stored list, filtered");
}

template <typename T>
void walk(uint64_t seed, int steps) {
  systems::Random random(seed);
  Case given = systems::random_case<T>(random, 40);
  given.positions.resize(std::min<size_t>(given.positions.size(), 25));
  const double skin = given.cutoff * systems::uniform(random, 0.1, 0.4);
  const int64_t atoms = static_cast<int64_t>(given.positions.size());
  Case wide = given;
  wide.cutoff += skin;
  const int64_t capacity = 200 + 3 * static_cast<int64_t>(find<T>(wide, Path::cells, 1, 1).pairs.size());
  SkinList<T> list(atoms, capacity, skin), twin(atoms, capacity, skin);
  RebuildModel model;
  const systems::Matrix first_box = given.box;
  for (int step = 0; step < steps; ++step) {
    for (auto& position : given.positions) {
      for (double& value : position) value += systems::uniform(random, -0.03, 0.03) * skin;
    }
    const int64_t event = systems::integer(random, 0, 9);
    if (event == 0 && atoms > 0) {  // one atom goes far
      given.positions[static_cast<size_t>(systems::integer(random, 0, atoms - 1))][1] += 0.6 * skin;
    }
    if (event <= 3 && given.periodic) {  // molecules move by lattice vectors, as OpenMM moves them
      for (int64_t atom = systems::integer(random, 0, 9); atom < atoms; atom += systems::integer(random, 1, 9)) {
        for (int k = 0; k < 3; ++k) {
          const double times = static_cast<double>(systems::integer(random, -2, 2));
          for (int d = 0; d < 3; ++d) given.positions[static_cast<size_t>(atom)][d] += times * given.box[k][d];
        }
      }
    }
    if (event == 4) {  // a barostat tries, and takes it back the next time
      const bool changed = given.box != first_box;
      for (int k = 0; k < 3; ++k) {
        for (int d = 0; d < 3; ++d) given.box[k][d] = changed ? first_box[k][d] : 1.01 * given.box[k][d];
      }
    }
    if (event == 5 && step % 3 == 0) given.periodic = !given.periodic;
    round_positions<T>(given);
    const Path path = seed % 3 == 0 ? Path::tiles : Path::cells;
    const double band = tolerance<T>(given) * 2;  // the reference positions are rounded too
    const bool trim = systems::integer(random, 0, 1) == 1;
    std::vector<Found> found, twins;
    if (trim) {
      found = list.trimmed(given, path, seed + step);
      require_equal(found, given, band, "trimmed");
      twins = twin.trimmed(given, path, seed + step + 1000);
    } else {
      found = list.padded(given, path, seed + step);
      check_padding(found, given, skin, list.status(kStatusStored), band);
      twins = twin.padded(given, path, seed + step + 1000);
    }
    REQUIRE(same_bits(found, twins), "not the same for another order of threads, seed %lu step %d", seed, step);
    REQUIRE(list.status(kStatusErrors) == 0, "errors %ld", list.status(kStatusErrors));
    REQUIRE(list.status(kStatusValid) == 1 && list.status(kStatusCalls) == step + 1, "valid, and calls counted");
    model.step(given, skin, list.status(kStatusRebuilds));
    REQUIRE(list.status(kStatusRebuilds) == model.rebuilds, "%ld rebuilds, expected %ld at seed %lu step %d",
            list.status(kStatusRebuilds), model.rebuilds, seed, step);
  }
  REQUIRE(atoms == 0 || model.rebuilds < steps, "every step rebuilt: nothing was tested");
}

void random_walks(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    if (seed % 2 == 0) {
      walk<float>(seed, 30);
    } else {
      walk<double>(seed, 30);
    }
  }
}

Case small_liquid() {
  Case given;
  given.cutoff = 0.5;
  given.box = {{{2, 0, 0}, {0.5, 2, 0}, {0, 0.25, 2}}};
  systems::Random random(11);
  for (int atom = 0; atom < 60; ++atom) {
    given.positions.push_back({});
    for (double& value : given.positions.back()) value = static_cast<float>(systems::uniform(random, 0, 2));
  }
  return given;
}

bool all_padding(const std::vector<Found>& slots) {
  return std::all_of(slots.begin(), slots.end(), [](const Found& pair) { return pair.i == -1 && pair.j == -1; });
}

void overflow(uint64_t) {
  for (const Path path : {Path::tiles, Path::cells}) {
    Case given = small_liquid();
    Case wide = given;
    wide.cutoff += 0.1;
    const int64_t required = static_cast<int64_t>(find<float>(wide, path, 1, 1).pairs.size());
    SkinList<float> full(60, required, 0.1);
    const auto slots = full.padded(given, path, 3);
    REQUIRE(full.status(kStatusErrors) == 0 && full.status(kStatusStored) == required, "exactly full");
    check_padding(slots, given, 0.1, required, 2 * tolerance<float>(given));

    SkinList<float> short_by_one(60, required - 1, 0.1);
    REQUIRE(all_padding(short_by_one.padded(given, path, 3)), "one short: nothing rather than a part");
    REQUIRE(short_by_one.status(kStatusErrors) == kErrorOverflow, "one short");
    REQUIRE(short_by_one.status(kStatusRequired) == required && short_by_one.status(kStatusStored) == 0, "one short");
    REQUIRE(short_by_one.status(kStatusValid) == 0, "one short: no list");
    Case spread = given;  // now there is room: the list comes back, the mark remains
    for (auto& position : spread.positions) position[2] *= 4;
    spread.box[2] = {0, 1, 8};
    round_positions<float>(spread);
    require_equal(short_by_one.trimmed(spread, path, 4), spread, 2 * tolerance<float>(spread), "after an overflow");
    REQUIRE(short_by_one.status(kStatusErrors) == kErrorOverflow && short_by_one.status(kStatusValid) == 1, "kept");

    SkinList<float> none(60, 0, 0.1);
    REQUIRE(none.padded(given, path, 5).empty() && none.status(kStatusErrors) == kErrorOverflow, "no capacity");
  }
}

void not_a_number(uint64_t) {
  for (const Path path : {Path::tiles, Path::cells}) {
    const Case good = small_liquid();
    SkinList<float> list(60, 6000, 0.1);
    list.padded(good, path, 1);
    Case bad = good;
    bad.positions[17][0] = NAN;
    bad.positions[33][0] = INFINITY;
    for (const Found& pair : list.padded(bad, path, 2)) REQUIRE(pair.i != 17 && pair.j != 33, "a pair with a bad atom");
    REQUIRE(list.status(kStatusErrors) == kErrorPositions && list.status(kStatusBadAtom) == 17, "errors %ld, atom %ld",
            list.status(kStatusErrors), list.status(kStatusBadAtom));
    REQUIRE(list.status(kStatusValid) == 0, "no list");
    require_equal(list.trimmed(good, path, 3), good, 2 * tolerance<float>(good), "after NaN");
    REQUIRE(list.status(kStatusRebuilds) == 3, "rebuilds %ld", list.status(kStatusRebuilds));
    list.padded(good, path, 4);
    REQUIRE(list.status(kStatusRebuilds) == 3, "the same positions need no rebuild");

    Case flat = good;
    flat.box[2] = flat.box[0];
    REQUIRE(all_padding(list.padded(flat, path, 5)), "a flat box has no pairs");
    REQUIRE((list.status(kStatusErrors) & kErrorBox) != 0 && list.status(kStatusValid) == 0, "a flat box");
    flat.box[2] = {0, 0, NAN};
    REQUIRE(all_padding(list.padded(flat, path, 6)), "a box of NaN");
    Case far = good;
    far.positions[5][0] += 1e8;
    list.padded(far, path, 7);
    REQUIRE(list.status(kStatusBadAtom) == 5, "too far away to know where");
  }
}

// Numbers that are no atoms come out as padding and an error; the emulator's fences would see them as offsets.
void state_of_another_list(uint64_t) {
  const Case given = small_liquid();
  for (const int32_t number : {60, -1, -2, INT32_MAX, INT32_MIN}) {
    for (const int64_t end : {0, 1}) {
      SkinList<float> list(60, 6000, 0.1);
      list.padded(given, Path::cells, 1);
      const int64_t slot = list.status(kStatusStored) / 2;
      const int32_t kept = list.state().stored_pairs[end * 6000 + slot];
      list.state().stored_pairs[end * 6000 + slot] = number;
      const std::vector<Found> slots = list.padded(given, Path::cells, 2);
      for (int64_t k = 0; k < list.status(kStatusStored); ++k) {
        REQUIRE((slots[static_cast<size_t>(k)].i == -1) == (k == slot), "slot %ld, atom %d", k, number);
      }
      REQUIRE(list.status(kStatusErrors) == kErrorStored && list.status(kStatusValid) == 0, "errors of atom %d", number);
      require_equal(list.trimmed(given, Path::cells, 3), given, 2 * tolerance<float>(given), "found anew");
      REQUIRE(list.state().stored_pairs[end * 6000 + slot] == kept, "found anew");
      REQUIRE(list.status(kStatusErrors) == kErrorStored && list.status(kStatusValid) == 1, "the mark remains");
    }
  }
  for (const int64_t stored : {int64_t(6001), int64_t(-1), INT64_MAX, INT64_MIN}) {
    SkinList<float> list(60, 6000, 0.1);
    list.padded(given, Path::tiles, 1);
    list.state().status[kStatusStored] = stored;
    REQUIRE(all_padding(list.padded(given, Path::tiles, 2)), "%ld pairs stored", stored);
    REQUIRE(list.status(kStatusErrors) == kErrorStored && list.status(kStatusValid) == 0, "%ld pairs stored", stored);
  }
  SkinList<float> smaller(20, 6000, 0.1);  // a list of 60 atoms, asked for 20
  SkinList<float> larger(60, 6000, 0.1);
  larger.padded(given, Path::cells, 1);
  Case part = given;
  part.positions.resize(20);
  smaller.padded(part, Path::cells, 2);
  smaller.state().stored_pairs = larger.state().stored_pairs;
  smaller.state().stored_shifts = larger.state().stored_shifts;
  smaller.state().status[kStatusStored] = larger.status(kStatusStored);
  for (const Found& pair : smaller.padded(part, Path::cells, 3)) REQUIRE(pair.i < 20 && pair.j < 20, "no such atom");
  REQUIRE(smaller.status(kStatusErrors) == kErrorStored, "a list of more atoms");
}

void nothing_to_do(uint64_t) {
  for (const Path path : {Path::tiles, Path::cells}) {
    Case given = small_liquid();
    given.positions.clear();
    SkinList<double> list(0, 8, 0.1);
    REQUIRE(all_padding(list.padded(given, path, 1)), "no atoms");
    REQUIRE(list.trimmed(given, path, 2).empty(), "no atoms");
    REQUIRE(list.status(kStatusErrors) == 0 && list.status(kStatusRebuilds) == 1, "no atoms");
  }
}

// Half a skin is enough motion for two atoms to come within the cutoff; the list must hold until just before.
void largest_motion_without_rebuild(uint64_t) {
  Case given;
  given.cutoff = 0.5;
  given.box = {{{4, 0, 0}, {0, 4, 0}, {0, 0, 4}}};
  given.positions = {{1, 1, 1}, {1.599, 1, 1}};
  SkinList<double> list(2, 10, 0.1);
  REQUIRE(list.trimmed(given, Path::tiles, 1).empty(), "0.599 apart");
  given.positions = {{1.0499, 1, 1}, {1.5491, 1, 1}};
  REQUIRE(list.trimmed(given, Path::tiles, 2).size() == 2, "0.4992 apart");
  REQUIRE(list.status(kStatusRebuilds) == 1, "moved less than half the skin");
  given.positions[0][0] = 1.0502;
  REQUIRE(list.trimmed(given, Path::tiles, 3).size() == 2 && list.status(kStatusRebuilds) == 2, "moved more");
  given.positions[0][0] += 4 * 7;  // seven boxes on: the same place
  const auto pairs = list.trimmed(given, Path::tiles, 4);
  REQUIRE(pairs.size() == 2 && list.status(kStatusRebuilds) == 2, "a lattice translation is no motion");
  REQUIRE(pairs[0].i == 0 && pairs[0].shift[0] == 7 && pairs[1].shift[0] == -7, "shifts are for the raw positions");
  SkinList<double> no_skin(2, 10, 0);
  no_skin.padded(given, Path::tiles, 5);
  no_skin.padded(given, Path::tiles, 6);
  REQUIRE(no_skin.status(kStatusRebuilds) == 1, "without motion not even a skin of zero rebuilds");
  given.positions[1][2] += 1e-9;
  no_skin.padded(given, Path::tiles, 7);
  REQUIRE(no_skin.status(kStatusRebuilds) == 2, "with a skin of zero any motion does");
}

}  // namespace testing
