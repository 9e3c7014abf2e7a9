"""The CUDA kernels, run by a grid emulator on the CPU under the address and undefined-behaviour sanitizers.

The emulator runs the very functions that nvcc compiles (csrc/base/cuda/block.h), blocks and threads in random order,
and compares with a direct sum over images that shares no code with them. OPENMM_GNN_EMULATOR_FACTOR=10 tests ten
times as many random systems.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from compiled_files import ROOT, compiled
from gpu_suite import small_tests

SOURCES = Path(__file__).parent / "emulator"
# -Og: compiling takes longer than running, and at -O1 nearly twice as long.
FLAGS = ["-Og", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
FACTOR = int(os.environ.get("OPENMM_GNN_EMULATOR_FACTOR", "1"))

SEARCH = {
    "random_systems": 120,  # each of 7 kinds of cell is met by 17 of them, each of 6 kinds of places by 20
    "large_systems": 1,
    "lattice_at_the_cutoff": 1,
    "pairs_along_the_normals": 60,
    "one_atom_and_its_images": 1,
    "open_boundaries": 30,
    "bad_input": 1,
}
SKIN_LIST = {
    "random_walks": 10,  # of 30 steps, each of which is compared: 150 lists in each precision
    "overflow": 1,
    "not_a_number": 1,
    "state_of_another_list": 1,
    "nothing_to_do": 1,
    "largest_motion_without_rebuild": 1,
}
SLOW, LONG = pytest.mark.slow, ("random_systems", "large_systems")
FRAMES = {"random_frames": 400, "bad_input": 50}
SEARCH_TESTS = "tests/kernels/test_cuda_parity.py"


def run_scenario(name: str, scenario: str, repetitions: int) -> None:
    program = compiled(SOURCES / f"{name}.cpp", *FLAGS, *SANITIZERS)
    result = subprocess.run([program, scenario, str(repetitions * FACTOR)], capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    assert result.stdout.strip().endswith("passed")


@pytest.mark.parametrize("scenario", [pytest.param(one, marks=SLOW if one in LONG else ()) for one in SEARCH])
def test_search_kernels_find_what_the_direct_sum_finds(scenario: str) -> None:
    run_scenario("test_neighbor_lists", scenario, SEARCH[scenario])


@pytest.mark.parametrize("scenario", SKIN_LIST)
def test_skin_list_kernels_equal_a_fresh_list_at_every_step(scenario: str) -> None:
    run_scenario("test_neighbor_lists", scenario, SKIN_LIST[scenario])


@pytest.mark.parametrize("scenario", FRAMES)
def test_frame_kernels_find_what_loops_over_all_pairs_find(scenario: str) -> None:
    run_scenario("test_frames", scenario, FRAMES[scenario])


def sanitized_threads(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command whose data races end it with exit code 66, and one that waits for ever by an exception."""
    options = "halt_on_error=1:exitcode=66:ignore_noninstrumented_modules=1:report_signal_unsafe=0"
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "TSAN_OPTIONS": options, **environment},
    )


@pytest.mark.parametrize(("waits", "code"), [("waits", 0), ("does not", 66)])
def test_a_missing_barrier_is_found(waits: str, code: int) -> None:
    program = compiled(SOURCES / "missing_barrier.cpp", *FLAGS, "-fsanitize=thread", "-pthread")
    result = sanitized_threads([str(program), waits])
    assert result.returncode == code, result.stderr
    assert ("data race" in result.stderr) is (code == 66)


@pytest.mark.skipif("OPENMM_GNN_RACES" not in os.environ, reason="takes minutes: make test-sanitizers runs it")
@pytest.mark.parametrize("brute_force_atoms", ["2048", "0"])
def test_no_kernel_has_a_data_race(brute_force_atoms: str) -> None:
    """The kernels' own tests on small systems, each thread of a block a thread, under the thread sanitizer.

    First all of them, with searches that test every pair; then the searches by cells.
    """
    tests = [one for one in small_tests("emulated") if brute_force_atoms != "0" or one.startswith(SEARCH_TESTS)]
    library = subprocess.run(["g++", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True).stdout
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not gpu"]
    command += [str(ROOT / one) for one in tests]
    result = sanitized_threads(
        command,
        LD_PRELOAD=library.strip(),
        OPENMM_GNN_EMULATOR="threads",
        OPENMM_GNN_BRUTE_FORCE_ATOMS=brute_force_atoms,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    assert int(re.findall(r"(\d+) passed", result.stdout)[-1]) == len(tests)
