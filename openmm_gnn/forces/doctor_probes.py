"""One small real computation per process, for the doctor: `python -m openmm_gnn.forces.doctor_probes NAME [ARGUMENTS]`.

A wrong pair of versions often kills the process (a segmentation fault, an undefined symbol), so the doctor never
computes in its own. A probe prints one line, RESULT_PREFIX and a JSON object; whatever else happens is its failure.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

RESULT_PREFIX = "doctor-probe-result "
NUM_PARTICLES = 8
SPRING_CONSTANT = 250.0
"""kJ/mol/nm^2, of the harmonic wells in which the probe of a force puts its particles."""
FORCE_TOLERANCE = 1e-4
"""Largest error allowed relative to the largest force; OpenCL and CUDA compute in single precision."""


def probe_torch() -> dict[str, Any]:
    """Version and build of torch, its vector instructions and GPUs."""
    import torch

    torch.ones(2).add(1).sum().item()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())],
    }


def probe_openmm() -> dict[str, Any]:
    """Version, platforms and plugins of OpenMM."""
    _import_torch_first()
    import openmm

    platforms = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
    return {
        "version": openmm.__version__,
        "platforms": platforms,
        "plugin_failures": list(openmm.Platform.getPluginLoadFailures()),
    }


def probe_kernels() -> dict[str, Any]:
    """The compiled neighbour search finds the only pair of a tiny periodic system, across the border of the box."""
    import torch

    from openmm_gnn.kernels import library
    from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs

    positions = torch.tensor([[0.1, 0.5, 0.5], [1.9, 0.5, 0.5]], dtype=torch.float64)
    pairs, _, distances = neighbor_pairs(positions, 0.5, 2.0 * torch.eye(3, dtype=torch.float64), full=False)
    if pairs.shape != (2, 1) or abs(float(distances[0]) - 0.2) > 1e-12:
        raise ArithmeticError(f"expected one pair at 0.2 nm, found pairs {pairs.tolist()} at {distances.tolist()} nm")
    return {"CUDA library": "loaded" if library.HAS_CUDA_LIBRARY else "not built or not usable"}


def probe_force(backend: str, platform: str) -> dict[str, Any]:
    """Harmonic forces from a TorchScript module through one backend on one platform, against the formula.

    Returns:
        milliseconds of one evaluation after the first, and the relative error of the forces.
    """
    import torch

    class HarmonicWell(torch.nn.Module):
        """energy = k/2 sum x^2 and its forces."""

        def __init__(self) -> None:
            super().__init__()
            self.spec_json = "{}"

        def forward(
            self, positions: torch.Tensor, box_vectors: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return 125.0 * (positions * positions).sum(), (-250.0 * positions).contiguous()

    from openmm_gnn.forces import python_force, torch_force

    module = torch.jit.script(HarmonicWell())
    makers: dict[str, Callable[..., Any]] = {
        "TorchForce": torch_force.torch_force,
        "PythonForce": python_force.python_force,
    }
    force = makers[backend](module, False)

    import numpy as np
    import openmm

    system = openmm.System()
    for _ in range(NUM_PARTICLES):
        system.addParticle(1.0)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    positions = np.linspace(-1.0, 1.0, 3 * NUM_PARTICLES).reshape(NUM_PARTICLES, 3)
    context.setPositions(positions)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        forces = context.getState(getForces=True).getForces(asNumpy=True)._value
        seconds.append(time.perf_counter() - start)
    expected = -SPRING_CONSTANT * positions
    error = float(np.abs(forces - expected).max() / np.abs(expected).max())
    if not error <= FORCE_TOLERANCE:
        raise ArithmeticError(f"the forces are wrong: off by {error:.1e} of the largest")
    return {"milliseconds": 1e3 * sorted(seconds)[len(seconds) // 2], "error": error}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": probe_torch,
    "openmm": probe_openmm,
    "kernels": probe_kernels,
    "force": probe_force,
}


def _import_torch_first() -> None:
    """OpenMM's TorchForce plugins find CUDA's libraries only where torch has loaded them before."""
    with contextlib.suppress(ImportError, OSError):  # probe_torch reports these
        import torch  # noqa: F401


if __name__ == "__main__":
    values = PROBES[sys.argv[1]](*sys.argv[2:])
    print(RESULT_PREFIX + json.dumps(values), flush=True)
