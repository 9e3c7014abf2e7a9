"""Which versions of torch, OpenMM and openmmtorch do not work together, how it shows, and the command that mends it.

Measured on Linux x86-64; `openmm-gnn doctor` prints what applies. Imports neither torch nor OpenMM, so that it
can speak where they crash.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata

OLDEST_TORCH = (2, 9)
OLDEST_OPENMM = (8, 4)
OPENMM_WITH_PYTHONFORCE = (8, 5)
PYTHON_WITHOUT_TORCHSCRIPT = (3, 14)
TORCH_OF_OPENMMTORCH = {"1.5": (2, 9)}
"""openmmtorch is bound to the torch it was built with."""

TORCHFORCE_STACK = "pip install openmmtorch==1.5 torch==2.9.1 openmm==8.4.0.post2"
BUILD_AGAIN = "pip install --no-build-isolation --force-reinstall --no-deps ."
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
    python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)


class Breaks(str, Enum):
    """What does not work because of a mismatch."""

    EVERYTHING = "everything"
    TORCHFORCE = "TorchForce"
    TORCHFORCE_ON_OPENCL = "TorchForce on OpenCL"
    TORCHSCRIPT = "every network as a Force"
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
    return [
        *_missing_or_old(versions),
        *_torchscript(versions.python),
        *_openmmtorch_mismatches(versions),
        *_unused_gpu(versions),
    ]


def _missing_or_old(versions: Versions) -> Iterator[Mismatch]:
    """What keeps everything from working."""
    if versions.torch is None:
        yield Mismatch("PyTorch is not installed", 'pip install "torch>=2.9"', Breaks.EVERYTHING)
    elif release(versions.torch) < OLDEST_TORCH:
        yield Mismatch(
            f"PyTorch {versions.torch} is older than 2.9, the first with the stable ABI that the kernels need",
            TORCHFORCE_STACK if versions.openmmtorch else 'pip install "torch>=2.9"',
            Breaks.EVERYTHING,
        )
    if versions.openmm is None:
        yield Mismatch("OpenMM is not installed", PYTHONFORCE_STACK, Breaks.EVERYTHING)
        return
    if release(versions.openmm) < OLDEST_OPENMM:
        yield Mismatch(
            f"OpenMM {versions.openmm} is older than 8.4, the oldest this package was tried with",
            TORCHFORCE_STACK if versions.openmmtorch else PYTHONFORCE_STACK,
            Breaks.EVERYTHING,
        )
    if versions.openmmtorch is None and release(versions.openmm) < OPENMM_WITH_PYTHONFORCE:
        yield Mismatch(
            f"OpenMM {versions.openmm} has no PythonForce (it came with 8.5), and openmmtorch, which brings "
            "TorchForce, is not installed: no backend is left",
            f"{PYTHONFORCE_STACK}   # or: {TORCHFORCE_STACK}",
            Breaks.EVERYTHING,
        )


def _torchscript(python: tuple[int, int]) -> Iterator[Mismatch]:
    """What keeps networks from being compiled."""
    if python >= PYTHON_WITHOUT_TORCHSCRIPT:
        yield Mismatch(
            f"networks are handed to OpenMM as TorchScript, which PyTorch does not support on Python {python[0]}."
            f"{python[1]}; `openmm-gnn export --format pt2` does without it",
            "take Python 3.11 to 3.13, and there: pip install openmm-gnn",
            Breaks.TORCHSCRIPT,
        )


def torchscript_words(python: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)) -> str | None:
    """Why TorchScript may fail on this Python, and the remedy; None where it does not."""
    for mismatch in _torchscript(python):
        return f"{mismatch.what}. Remedy: {mismatch.remedy}"
    return None


def _openmmtorch_mismatches(versions: Versions) -> Iterator[Mismatch]:
    """What openmmtorch does not work with."""
    if versions.openmmtorch is None:
        return
    needed = TORCH_OF_OPENMMTORCH.get(versions.openmmtorch)
    if versions.torch is not None and needed is not None and (found := release(versions.torch)[:2]) != needed:
        symptom = (
            "the process dies (segmentation fault) when a Context is made"
            if found < needed
            else "making a Context fails with a message about set_stride"
        )
        yield Mismatch(
            f"openmmtorch {versions.openmmtorch} was built with PyTorch {needed[0]}.{needed[1]} and works with no "
            f"other; with PyTorch {versions.torch} {symptom}",
            TORCHFORCE_STACK,
            Breaks.TORCHFORCE,
        )
    if versions.torch is not None and not versions.torch_has_cuda:
        yield Mismatch(
            f"openmmtorch {versions.openmmtorch} links CUDA's libraries, also where there is no GPU, and PyTorch "
            f"{versions.torch} is a CPU-only build without them: libnvrtc.so.12 is not found",
            "pip install --force-reinstall torch==2.9.1   # from the default index, not the CPU one",
            Breaks.TORCHFORCE,
        )
    if needed is not None and versions.openmm is not None and release(versions.openmm) >= OPENMM_WITH_PYTHONFORCE:
        yield Mismatch(
            f"openmmtorch {versions.openmmtorch} was built for OpenMM 8.4; with OpenMM {versions.openmm} its OpenCL "
            "plugin ends the process on an undefined symbol (Reference and CPU were seen to work)",
            "pip install openmm==8.4.0.post2   # or, to use PythonForce alone: pip uninstall openmmtorch",
            Breaks.TORCHFORCE_ON_OPENCL,
        )
    if needed is None:
        yield Mismatch(
            f"openmmtorch {versions.openmmtorch} was never tried with this package, which knows "
            f"{', '.join(TORCH_OF_OPENMMTORCH)}",
            TORCHFORCE_STACK,
            Breaks.NOTHING_KNOWN,
        )


def _unused_gpu(versions: Versions) -> Iterator[Mismatch]:
    """What keeps an NVIDIA GPU from being used."""
    if not versions.gpu_visible:
        return
    if versions.openmm is not None and not versions.openmm_has_cuda:
        packages = [f'"openmm[cuda12]=={versions.openmm}"']
        if versions.openmmtorch is not None:
            packages.append(f'"openmmtorch[cuda12]=={versions.openmmtorch}"')
        yield Mismatch(
            "this machine has an NVIDIA GPU, but OpenMM's CUDA platform is not installed",
            "pip install " + " ".join(packages),
            Breaks.SPEED,
        )
    if versions.torch is not None and not versions.torch_has_cuda:
        yield Mismatch(
            f"this machine has an NVIDIA GPU, but PyTorch {versions.torch} is a CPU-only build",
            f"pip install --force-reinstall torch=={versions.torch.split('+')[0]}   # from the default index",
            Breaks.SPEED,
        )
