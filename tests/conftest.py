"""Shared by all tests: threads, the GPU marker, and the platforms that OpenMM offers here."""

from __future__ import annotations

import openmm
import pytest
import torch  # before OpenMM: its TorchForce plugins need CUDA's libraries, which torch loads


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped by name where there is no CUDA device; the closing lines count them."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument `platform_name` runs once on each platform that OpenMM has loaded."""
    if "platform_name" in metafunc.fixturenames:
        count = openmm.Platform.getNumPlatforms()
        names = [openmm.Platform.getPlatform(index).getName() for index in range(count)]
        metafunc.parametrize("platform_name", names)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
