// Both operators of neighbours in one program, for they share their kernels, and these take the compiler longest.
// Run as: test_neighbor_lists SCENARIO REPETITIONS
#include <cstring>

#include "search_scenarios.h"
#include "skin_list_scenarios.h"

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)(uint64_t)> scenarios[] = {
      {"random_systems", testing::random_systems},
      {"large_systems", testing::large_systems},
      {"lattice_at_the_cutoff", testing::lattice_at_the_cutoff},
      {"pairs_along_the_normals", testing::pairs_along_the_normals},
      {"one_atom_and_its_images", testing::one_atom_and_its_images},
      {"open_boundaries", testing::open_boundaries},
      {"bad_input", testing::bad_input},
      {"random_walks", testing::random_walks},
      {"overflow", testing::overflow},
      {"not_a_number", testing::not_a_number},
      {"state_of_another_list", testing::state_of_another_list},
      {"nothing_to_do", testing::nothing_to_do},
      {"largest_motion_without_rebuild", testing::largest_motion_without_rebuild},
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
