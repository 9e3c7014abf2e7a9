"""Everything that needs a GPU: the tests marked `gpu`, then compute-sanitizer over the kernels'. `make test-gpu`.

    python tests/gpu_suite.py [--seconds 400] [--again] [--results FOLDER] [phase ...] [pytest arguments]

Phases run in the order of their importance; each has a time limit, and what has passed with the same libraries is not
run again (benchmarks/gpu/phases.py). With arguments for pytest only those tests run, and nothing is recorded.

Fails, never skips, where torch sees no device or the extension was built without CUDA. A missing compute-sanitizer is
said aloud and fails nothing: it is a tool of the CUDA toolkit that some machines lack or whose drivers refuse it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "benchmarks" / "gpu"), str(ROOT / "tests" / "samples")]

from phases import (  # noqa: E402  - of benchmarks/gpu, and it imports no PyTorch
    Phase,
    add_options,
    digest_of_libraries,
    end_as_if_interrupted,
    results_of,
    run_phases,
    say,
)

LONG = "million_steps"
"""Part of the names of tests that have a phase of their own."""
FILES = {
    "list": ("tests/kernels/test_cuda_parity.py", "tests/kernels/test_frame_edges.py"),
    "networks": (
        "tests/kernels/test_row_sums.py",
        "tests/kernels/test_pair_forces.py",
        "tests/kernels/test_network_forces.py",
        "tests/kernels/test_tile_sums.py",
        "tests/kernels/test_edge_rows.py",
        "tests/kernels/test_vector_network.py",
        "tests/kernels/test_attention.py",
    ),
    "openmm": ("tests/forces/test_cuda_graphs.py", "tests/features/test_featurizer.py"),
}
"""Files with tests marked gpu, by the phase that runs them, each file in a process of its own."""
NEEDS_OPENMM = ("openmm",)
SMALL_TESTS = {
    "row_sums": [
        "test_rows_hold_each_end_of_a_pair_once_in_order[BACKEND-1-30]",
        "test_messages_and_gradients_equal_plain_torch[BACKEND-True-16]",
        "test_strengths_and_gradients_equal_plain_torch[BACKEND-16]",
    ],
    "network_forces": ["test_energy_and_forces_are_the_networks[BACKEND-charges-triclinic]"],
    "tile_sums": ["test_forces_equal_those_of_plain_torch[BACKEND-64-30-pair]"],
    "edge_rows": [
        *(f"test_encoders_equal_plain_torch[BACKEND-{n}-16-16-nearest]" for n in ("torchmd-et", "visnet", "tensornet")),
        "test_gradients_equal_those_of_plain_torch[BACKEND-16-16-nearest-True]",
    ],
    "pair_forces": [
        "test_forces_and_energy_equal_plain_torch[BACKEND-1-20]",
        "test_kinds_of_pairs_equal_plain_torch[BACKEND]",
    ],
    "frame_edges": [f"test_edges_of_one_frame_are_those_of_a_search[BACKEND-{n}-2]" for n in ("full", "nearest")],
    "cuda_parity": ["test_pairs_equal_those_of_the_cpu[BACKEND-31-dtype0]"],
}
"""For each file of kernels' tests those, of small systems, that every kernel takes part in: what slow tools watch."""
SANITIZERS = ("memcheck", "racecheck", "initcheck")
UNSUPPORTED = ("Device not supported", "Failed to initialize", "not supported on this")
FOUND_ERRORS = 99
"""Exit code that compute-sanitizer is told to give for an error it found."""


def small_tests(backend: str) -> list[str]:
    """The tests of SMALL_TESTS as pytest names them, on the backend `emulated` or `cuda`."""
    return [
        f"tests/kernels/test_{name}.py::{test.replace('BACKEND', backend)}"
        for name, tests in SMALL_TESTS.items()
        for test in tests
    ]


def why_no_gpu() -> str | None:
    """None where CUDA kernels of ours can run, else what is missing and what to do."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build: install one for CUDA, or name another GPU_PYTHON"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device: run this where there is one (nvidia-smi lists it)"
    from openmm_gnn.kernels import library

    if not library.HAS_CUDA_LIBRARY:
        return "the extension was built without CUDA: put nvcc on the PATH and build it again (make test-gpu does)"
    from cuda_backends import ALL

    known = torch._C._dispatch_has_kernel_for_dispatch_key
    if lacking := [name for name in ALL if not known(f"openmm_gnn::{name}", "CUDA")]:
        return f"the CUDA library is older than the sources, it lacks {', '.join(lacking)}: build it again"
    torch.cuda.synchronize()
    return None


def pytest_command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *arguments]


def phases() -> list[Phase]:
    """All of them, the most important first."""
    required = {"OPENMM_GNN_REQUIRE_GPU": "1", "PYTHONUNBUFFERED": "1"}

    def tests(name: str, seconds: float) -> Phase:
        commands = {Path(file).stem: pytest_command([file, "-k", f"not {LONG}"]) for file in FILES[name]}
        return Phase(name, seconds, commands, required)

    this = str(Path(__file__).resolve())
    sanitizers = {tool: [sys.executable, this, "--sanitizer", tool] for tool in SANITIZERS}
    long = {"test_cuda_parity": pytest_command([FILES["list"][0], "-k", LONG])}
    return [
        tests("list", 90),
        tests("networks", 100),
        Phase("sanitizers", 120, sanitizers, required),
        tests("openmm", 90),
        Phase("million-steps", 150, long, required),
    ]


def left_out() -> set[str]:
    """Phases that need a package that is not here, which is said aloud."""
    missing = [name for name in ("openmm", "mdtraj") if importlib.util.find_spec(name) is None]
    if missing:
        say(f"{' and '.join(missing)} not installed here: left out are {', '.join(NEEDS_OPENMM)}")
    return set(NEEDS_OPENMM) if missing else set()


def sanitize(tool: str) -> bool:
    """One tool of compute-sanitizer over the kernels' small tests; True if it found nothing, or cannot run here."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        say(f"{tool}: compute-sanitizer is not installed here, so it did not run (it is part of the CUDA toolkit)")
        return True
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--target-processes", "all"]
    command += sanitizer_filters(subprocess.run([sanitizer, "--help"], capture_output=True, text=True).stdout)
    command += pytest_command(["-x", *small_tests("cuda")])
    # The caching allocator is off, so that each tensor has borders of its own.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    unsupported = False
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        unsupported |= any(words in line for words in UNSUPPORTED)
    status = process.wait()
    if unsupported:
        say(f"{tool}: compute-sanitizer cannot work with this device or driver, see above; nothing was checked")
        return True
    say(f"{tool}: {'no errors' if status == 0 else 'ERRORS, see above'}")
    return status == 0


def sanitizer_filters(help_text: str) -> list[str]:
    """Options that leave PyTorch's own kernels and calls unchecked, as far as a compute-sanitizer has them.

    A call that PyTorch makes to see whether it fails is no error of ours; ours are checked in csrc/base/cuda/launch.h.
    """
    options = []
    for name in ("--kernel-name", "--kernel-regex", "--filter"):  # as of 2025, of 2021, and before
        if f"{name} " in help_text:
            options += [name, "kns=openmm_gnn"]
            break
    if "--report-api-errors " in help_text:
        options += ["--report-api-errors", "no"]
    return options


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser)
    parser.add_argument("--sanitizer", choices=SANITIZERS, help=argparse.SUPPRESS)
    asked, others = parser.parse_known_args()
    if asked.sanitizer is not None:
        return 0 if sanitize(asked.sanitizer) else 1
    if (missing := why_no_gpu()) is not None:
        say(f"no GPU tests here: {missing}")
        return 1
    import torch

    from openmm_gnn.kernels import library

    os.chdir(ROOT)
    end_as_if_interrupted()
    gpu = torch.cuda.get_device_name()
    say(f"{gpu}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    names = [phase.name for phase in phases()]
    if any(one not in names for one in others):
        environment = {**os.environ, "OPENMM_GNN_REQUIRE_GPU": "1"}
        return subprocess.run(pytest_command(others), check=False, env=environment).returncode
    without = left_out()
    chosen = [phase for phase in phases() if phase.name in (others or names) and phase.name not in without]
    digest = digest_of_libraries(library.FOLDER)
    passed = run_phases(chosen, results_of(gpu, asked.results), "tests", digest, asked.seconds, asked.again)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
