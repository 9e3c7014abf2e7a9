"""Shared by all tests: threads, the GPU marker, and the platforms that OpenMM offers here."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
import torch  # before OpenMM: its TorchForce plugins need CUDA's libraries, which torch loads

TESTS = Path(__file__).parent
sys.path[:0] = [str(TESTS / "samples"), str(TESTS), str(TESTS.parent / "benchmarks" / "studies")]
sys.path.append(str(TESTS.parent / "benchmarks" / "gpu"))


def pytest_sessionstart() -> None:
    """Under `make test-gpu` a missing device or CUDA library ends the run: it must not look like tests that passed."""
    if os.environ.get("OPENMM_GNN_REQUIRE_GPU") != "1":
        return
    from gpu_suite import why_no_gpu

    if (reason := why_no_gpu()) is not None:
        pytest.exit(f"no GPU tests here: {reason}", returncode=1)


LONGEST = [
    "test_examples",
    "cli/test_analyze",
    "kernels/test_cuda_build",
    "learning/test_scaling",
    "kernels/test_cuda_emulator",
    "test_documents",
    "data/test_teacher",
    "networks/test_cv_network",
    "forces/test_openmm_ml",
    "kernels/test_neighbor_pairs_oracle",
    "learning/test_denoising_processes",
    "kernels/test_edge_rows",
    "graph/test_neighbor_list",
    "runs/test_accelerated_runs",
    "cli/test_demo",
    "cli/test_doctor",
    "kinetics/test_vampnet",
    "kinetics/test_spib",
    "learning/test_denoising",
]
"""Files whose tests take longest: they come first, so that no worker is busy with one when the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; those marked `gpu` are skipped by name where no device is; the closing lines count them."""
    places = {str(TESTS / f"{name}.py"): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the collector need not look through all of PyTorch and OpenMM again and again."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `platform_name` runs once on each platform that OpenMM has loaded."""
    if "platform_name" in metafunc.fixturenames:
        import openmm  # here, so that the kernels can be tested where there is none

        count = openmm.Platform.getNumPlatforms()
        names = [openmm.Platform.getPlatform(index).getName() for index in range(count)]
        metafunc.parametrize("platform_name", names)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def geom2vec_data() -> Path:
    """The folder with geom2vec's public checkpoints and what the published code makes of them, where there is one.

    $GEOM2VEC_DATA, or a folder data/geom2vec beside this repository.
    """
    given = os.environ.get("GEOM2VEC_DATA")
    folders = [Path(given)] if given else sorted(Path(__file__).parents[2].glob("*/data/geom2vec"))
    for folder in folders:
        if (folder / "et_l6_h64_rbf64_r75.pth").is_file():
            return folder
    pytest.skip("no geom2vec checkpoints here: give their folder as GEOM2VEC_DATA")
