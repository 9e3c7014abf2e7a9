"""Everything that needs a GPU: the tests marked `gpu`, then compute-sanitizer over the kernels'. `make test-gpu`.

    python tests/gpu_suite.py [--only tests|memcheck|racecheck] [pytest arguments]

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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SANITIZED = [
    f"tests/kernels/test_{name}.py"
    for name in ("cuda_parity", "row_sums", "tile_sums", "frame_edges", "edge_rows", "pair_forces")
]
# Where tests marked gpu are. The other folders need packages that no GPU test does, and one import that fails would
# keep pytest from running any.
FOLDERS = ("tests/kernels", "tests/graph", "tests/networks", "tests/features", "tests/forces")
WITHOUT_OPENMM = ("tests/kernels", "tests/graph")
WITHOUT_OPENMM += ("--ignore=tests/kernels/test_particle_mesh.py",)
# Graphs are left out because the caching allocator is off, so that each tensor has borders of its own; large systems
# and wide networks because the tools slow a kernel down by two orders of magnitude.
SANITIZED_TESTS = "cuda and not graph and not large and not million and not 40000 and not 2048 and not 2049"
SANITIZED_TESTS += " and not 12282 and not 128-8 and not 256-4"
UNSUPPORTED = ("Device not supported", "Failed to initialize", "not supported on this")
FOUND_ERRORS = 99
"""Exit code that compute-sanitizer is told to give for an error it found."""


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
    torch.cuda.synchronize()
    return None


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in the repository's root; what it says goes on and is kept."""
    say(" ".join(command))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return subprocess.CompletedProcess(command, process.wait(), "".join(lines))


def run_tests(arguments: list[str]) -> bool:
    missing = [name for name in ("openmm", "mdtraj") if importlib.util.find_spec(name) is None]
    folders = WITHOUT_OPENMM if missing else FOLDERS
    if missing:
        say(f"{' and '.join(missing)} not installed here: only kernels, lists and attention are tested")
    where = arguments if any(argument.startswith("tests") for argument in arguments) else [*arguments, *folders]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *where]
    done = run(command, OPENMM_GNN_REQUIRE_GPU="1")
    return done.returncode == 0


def sanitize(tool: str) -> bool:
    """One tool of compute-sanitizer over the kernels' tests; True if it found nothing, or cannot run here."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        say(f"{tool}: compute-sanitizer is not installed here, so it did not run (it is part of the CUDA toolkit)")
        return True
    tests = [path for path in SANITIZED if (ROOT / path).is_file()]
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND_ERRORS), "--target-processes", "all"]
    command += sanitizer_filters(subprocess.run([sanitizer, "--help"], capture_output=True, text=True).stdout)
    command += [sys.executable, "-m", "pytest", "-q", "-x", "-m", "gpu", "-p", "no:cacheprovider"]
    done = run([*command, *tests, "-k", SANITIZED_TESTS], PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    if any(words in done.stdout for words in UNSUPPORTED):
        say(f"{tool}: compute-sanitizer cannot work with this device or driver, see above; nothing was checked")
        return True
    say(f"{tool}: {'no errors' if done.returncode == 0 else 'ERRORS, see above'}")
    return done.returncode == 0


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


def say(text: str) -> None:
    sys.stdout.write(f"== {text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["tests", "memcheck", "racecheck"])
    options, pytest_arguments = parser.parse_known_args()
    if (missing := why_no_gpu()) is not None:
        say(f"no GPU tests here: {missing}")
        return 1
    import torch

    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {sys.version.split()[0]}")
    steps = {
        "tests": lambda: run_tests(pytest_arguments),
        "memcheck": lambda: sanitize("memcheck"),
        "racecheck": lambda: sanitize("racecheck"),
    }
    results = {name: step() for name, step in steps.items() if options.only in (None, name)}
    say(", ".join(f"{name}: {'passed' if passed else 'FAILED'}" for name, passed in results.items()))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
