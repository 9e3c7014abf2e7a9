// frame_edges: the kernels against loops over all pairs, with fences around every array. Run as: test_frames SCENARIO
// REPETITIONS
#include <cstring>
#include <tuple>

#include "neighbors/cuda/frame_edges.h"
#include "run_kernels.h"

namespace testing {

using namespace openmm_gnn::cuda;

struct Question {
  std::vector<systems::Vector> positions;
  std::vector<int64_t> frames;
  double cutoff = 1;
  int64_t most = 0;
  bool nearest = false;
};

using Edges = std::vector<std::pair<int64_t, int64_t>>;  // source, target

// What edges there are, in order, by sorting all of each row.
template <typename T>
Edges all_edges(const Question& given) {
  Edges edges;
  const int64_t atoms = static_cast<int64_t>(given.positions.size());
  const T cutoff = static_cast<T>(given.cutoff);
  for (int64_t target = 0; target < atoms; ++target) {
    std::vector<std::tuple<bool, T, int64_t>> row;
    for (int64_t source = 0; source < atoms; ++source) {
      if (given.frames[source] != given.frames[target]) continue;
      T squared = 0;
      for (int d = 0; d < 3; ++d) {
        const T difference =
            static_cast<T>(given.positions[source][d]) - static_cast<T>(given.positions[target][d]);
        squared += difference * difference;
      }
      if (source != target && !(squared < cutoff * cutoff)) continue;
      row.emplace_back(given.nearest && source != target, given.nearest ? std::sqrt(squared) : T(0), source);
    }
    std::sort(row.begin(), row.end());
    if (given.most > 0 && static_cast<int64_t>(row.size()) > given.most) row.resize(given.most);
    for (const auto& entry : row) edges.emplace_back(std::get<2>(entry), target);
  }
  return edges;
}

struct Answer {
  EdgeReport report;
  Edges edges;
};

template <typename T>
Answer search(const Question& given, uint64_t seed, int strands, int64_t row_stride) {
  emulator::Memory memory;
  emulator::Launcher launcher(seed);
  FrameSearch<T> search{};
  search.num_atoms = static_cast<int64_t>(given.positions.size());
  T* positions = memory.take<T>(search.num_atoms == 0 ? 0 : (search.num_atoms - 1) * row_stride + 3);
  int64_t* frames = memory.take<int64_t>(search.num_atoms);
  for (int64_t atom = 0; atom < search.num_atoms; ++atom) {
    for (int d = 0; d < 3; ++d) positions[atom * row_stride + d] = static_cast<T>(given.positions[atom][d]);
    frames[atom] = given.frames[atom];
  }
  search.positions = positions;
  search.row_stride = row_stride;
  search.column_stride = 1;
  search.frames = frames;
  search.cutoff = static_cast<T>(given.cutoff);
  search.most = given.most;
  search.nearest = given.nearest;
  search.strands = strands;
  lay_out_frames(memory, search);
  count_frame_edges(launcher, search);
  Answer answer{*search.report, {}};
  if (!answer.report.active()) return answer;
  NearEdges<T> near{};
  lay_out_near(memory, given.nearest ? answer.report.found : 0, near);
  const int64_t count = given.nearest ? answer.report.kept : answer.report.found;
  int64_t* index = memory.take<int64_t>(2 * count);
  write_frame_edges(launcher, search, near, EdgeIndex<T>{index, count});
  for (int64_t edge = 0; edge < count; ++edge) answer.edges.emplace_back(index[edge], index[count + edge]);
  return answer;
}

Question random_question(systems::Random& random) {
  Question given;
  int64_t frame = systems::integer(random, 0, 3);
  const bool lattice = systems::integer(random, 0, 2) == 0;  // many equal distances, and coincident atoms
  for (int64_t k = systems::integer(random, 0, 8); k > 0; --k) {
    const int64_t size = systems::integer(random, 0, 3) == 0 ? systems::integer(random, 0, 150)
                                                              : systems::integer(random, 0, 12);
    for (int64_t atom = 0; atom < size; ++atom) {
      systems::Vector place;
      for (double& value : place) value = lattice ? systems::integer(random, 0, 3) : systems::uniform(random, 0, 4);
      given.positions.push_back(place);
      given.frames.push_back(frame);
    }
    frame += systems::integer(random, 1, 1000);
  }
  given.cutoff = lattice ? systems::integer(random, 1, 3) : systems::uniform(random, 0.2, 3);
  given.nearest = systems::integer(random, 0, 1) == 1;
  given.most = systems::integer(random, given.nearest ? 1 : 0, 20);
  return given;
}

template <typename T>
void check_question(const Question& given, uint64_t seed) {
  const Edges truth = all_edges<T>(given);
  for (uint64_t run = 0; run < 2; ++run) {
    const Answer answer = search<T>(given, seed + 1000 * run, 1 << ((seed + run) % 6), 3 + seed % 3);
    REQUIRE(answer.report.active(), "an error at seed %lu", seed);
    REQUIRE(answer.edges == truth, "%zu edges, not those %zu, at seed %lu", answer.edges.size(), truth.size(), seed);
  }
}

void random_frames(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    systems::Random random(seed);
    const Question given = random_question(random);
    if (seed % 2 == 0) {
      check_question<float>(given, seed);
    } else {
      check_question<double>(given, seed);
    }
  }
}

// Frames that fall, in any way, are reported and lead nowhere; so are positions that are not finite.
void bad_input(uint64_t repetitions) {
  for (uint64_t seed = 0; seed < repetitions; ++seed) {
    systems::Random random(seed);
    Question given = random_question(random);
    const int64_t atoms = static_cast<int64_t>(given.positions.size());
    if (atoms < 2) continue;
    const Question good = given;
    for (int64_t& frame : given.frames) frame = systems::integer(random, -2, 3);
    given.frames[atoms - 1] = -1;
    REQUIRE(search<float>(given, seed, 4, 3).report.bad_frames == 1, "frames that fall, seed %lu", seed);
    given = good;
    const int64_t bad = systems::integer(random, 0, atoms - 1);
    for (int64_t atom = bad; atom < atoms; atom += 5) given.positions[atom][atom % 3] = seed % 2 ? NAN : -INFINITY;
    const EdgeReport report = search<double>(given, seed, 8, 3).report;
    REQUIRE(report.bad_frames == 0 && report.bad_atom == bad - atoms, "atom %ld", report.bad_atom + atoms);
  }
}

}  // namespace testing

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)(uint64_t)> scenarios[] = {
      {"random_frames", testing::random_frames},
      {"bad_input", testing::bad_input},
  };
  for (const auto& [name, run] : scenarios) {
    if (argc == 3 && std::strcmp(argv[1], name) == 0) {
      run(std::strtoull(argv[2], nullptr, 10));
      std::printf("passed\n");
      return 0;
    }
  }
  std::printf("no such scenario\n");
  return 2;
}
