"""Which versions of torch, OpenMM and openmmtorch do not work together, how it shows, and the command that mends it.

Measured on Linux x86-64; `openmm-gnn doctor` prints what applies. Imports neither torch nor OpenMM, so that it
can speak where they crash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from importlib import metadata

OLDEST_TORCH = (2, 9)
OLDEST_OPENMM = (8, 4)
OPENMM_WITH_PYTHONFORCE = (8, 5)
TORCH_OF_OPENMMTORCH = {"1.5": (2, 9)}
"""openmmtorch is bound to the torch it was built with."""

TORCHFORCE_STACK = "pip install openmmtorch==1.5 torch==2.9.1 openmm==8.4.0.post2"
PYTHONFORCE_STACK = 'pip install "openmm>=8.5"'


@dataclass(frozen=True)
class Versions:
    """The installed versions that matter; None where a package is absent."""

    torch: str | None
    openmm: str | None
    openmmtorch: str | None
    torch_has_cuda: bool = True
    """Whether torch is a CUDA build, which also runs without a GPU."""
    gpu_visible: bool = False
    """Whether the machine has an NVIDIA GPU with a driver."""
    openmm_has_cuda: bool = False
    """Whether OpenMM's CUDA platform is installed."""


class Breaks(str, Enum):
    """What does not work because of a mismatch."""

    EVERYTHING = "everything"
    TORCHFORCE = "TorchForce"
    TORCHFORCE_ON_OPENCL = "TorchForce on OpenCL"
    NOTHING_KNOWN = "nothing that is known"
    SPEED = "nothing, but runs are slow"


@dataclass(frozen=True)
class Mismatch:
    """Something that does not fit: in words, and the command that mends it."""

    what: str
    remedy: str
    breaks: Breaks


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 9, 1) of "2.9.1+cpu"."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def find_mismatches(versions: Versions) -> list[Mismatch]:
    """Every known mismatch among these versions, the most serious first."""
    return [found for rule in RULES if (found := rule(versions)) is not None]


def _torch_missing_or_old(versions: Versions) -> Mismatch | None:
    remedy = 'pip install "torch>=2.9"'
    if versions.torch is None:
        return Mismatch("PyTorch is not installed", remedy, Breaks.EVERYTHING)
    if release(versions.torch) < OLDEST_TORCH:
        return Mismatch(
            f"PyTorch {versions.torch} is older than 2.9, the first with the stable ABI that the kernels need",
            TORCHFORCE_STACK if versions.openmmtorch else remedy,
            Breaks.EVERYTHING,
        )
    return None


def _openmm_missing_or_old(versions: Versions) -> Mismatch | None:
    if versions.openmm is None:
        return Mismatch("OpenMM is not installed", 'pip install "openmm>=8.5"', Breaks.EVERYTHING)
    if release(versions.openmm) < OLDEST_OPENMM:
        return Mismatch(
            f"OpenMM {versions.openmm} is older than 8.4, the oldest this package was tried with",
            TORCHFORCE_STACK if versions.openmmtorch else PYTHONFORCE_STACK,
            Breaks.EVERYTHING,
        )
    return None


def _no_backend(versions: Versions) -> Mismatch | None:
    if versions.openmm is None or versions.openmmtorch is not None:
        return None
    if release(versions.openmm) >= OPENMM_WITH_PYTHONFORCE:
        return None
    return Mismatch(
        f"OpenMM {versions.openmm} has no PythonForce (it came with 8.5), and openmmtorch, which brings TorchForce, "
        "is not installed: no backend is left",
        f"{PYTHONFORCE_STACK}   # or: {TORCHFORCE_STACK}",
        Breaks.EVERYTHING,
    )


def _openmmtorch_with_another_torch(versions: Versions) -> Mismatch | None:
    if versions.openmmtorch is None or versions.torch is None:
        return None
    needed = TORCH_OF_OPENMMTORCH.get(versions.openmmtorch)
    found = release(versions.torch)[:2]
    if needed is None or found == needed:
        return None
    symptom = (
        "the process dies (segmentation fault) when a Context is made"
        if found < needed
        else "making a Context fails with a message about set_stride"
    )
    return Mismatch(
        f"openmmtorch {versions.openmmtorch} was built with PyTorch {needed[0]}.{needed[1]} and works with no other; "
        f"with PyTorch {versions.torch} {symptom}",
        TORCHFORCE_STACK,
        Breaks.TORCHFORCE,
    )


def _openmmtorch_with_cpu_torch(versions: Versions) -> Mismatch | None:
    if versions.openmmtorch is None or versions.torch is None or versions.torch_has_cuda:
        return None
    return Mismatch(
        f"openmmtorch {versions.openmmtorch} links CUDA's libraries, also where there is no GPU, and PyTorch "
        f"{versions.torch} is a CPU-only build without them: libnvrtc.so.12 is not found",
        "pip install --force-reinstall torch==2.9.1   # from the default index, not the CPU one",
        Breaks.TORCHFORCE,
    )


def _openmmtorch_with_newer_openmm(versions: Versions) -> Mismatch | None:
    if versions.openmmtorch not in TORCH_OF_OPENMMTORCH or versions.openmm is None:
        return None
    if release(versions.openmm) < OPENMM_WITH_PYTHONFORCE:
        return None
    return Mismatch(
        f"openmmtorch {versions.openmmtorch} was built for OpenMM 8.4; with OpenMM {versions.openmm} its OpenCL plugin "
        "ends the process on an undefined symbol (Reference and CPU were seen to work)",
        "pip install openmm==8.4.0.post2   # or, to use PythonForce alone: pip uninstall openmmtorch",
        Breaks.TORCHFORCE_ON_OPENCL,
    )


def _openmmtorch_unknown(versions: Versions) -> Mismatch | None:
    if versions.openmmtorch is None or versions.openmmtorch in TORCH_OF_OPENMMTORCH:
        return None
    return Mismatch(
        f"openmmtorch {versions.openmmtorch} was never tried with this package, which knows "
        f"{', '.join(TORCH_OF_OPENMMTORCH)}",
        TORCHFORCE_STACK,
        Breaks.NOTHING_KNOWN,
    )


def _gpu_without_cuda_platform(versions: Versions) -> Mismatch | None:
    if not versions.gpu_visible or versions.openmm is None or versions.openmm_has_cuda:
        return None
    packages = [f'"openmm[cuda12]=={versions.openmm}"']
    if versions.openmmtorch is not None:
        packages.append(f'"openmmtorch[cuda12]=={versions.openmmtorch}"')
    return Mismatch(
        "this machine has an NVIDIA GPU, but OpenMM's CUDA platform is not installed",
        "pip install " + " ".join(packages),
        Breaks.SPEED,
    )


def _gpu_without_cuda_torch(versions: Versions) -> Mismatch | None:
    if not versions.gpu_visible or versions.torch is None or versions.torch_has_cuda:
        return None
    return Mismatch(
        f"this machine has an NVIDIA GPU, but PyTorch {versions.torch} is a CPU-only build",
        f"pip install --force-reinstall torch=={versions.torch.split('+')[0]}   # from the default index",
        Breaks.SPEED,
    )


RULES: tuple[Callable[[Versions], Mismatch | None], ...] = (
    _torch_missing_or_old,
    _openmm_missing_or_old,
    _no_backend,
    _openmmtorch_with_another_torch,
    _openmmtorch_with_cpu_torch,
    _openmmtorch_with_newer_openmm,
    _openmmtorch_unknown,
    _gpu_without_cuda_platform,
    _gpu_without_cuda_torch,
)
