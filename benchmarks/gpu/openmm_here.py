"""Whether OpenMM's CUDA platform can be used, for the tables that need it."""

from __future__ import annotations

import sys


def require_cuda_platform() -> None:
    """Ends the program in words, as a failure, where OpenMM or its CUDA platform is missing."""
    try:
        import openmm
    except ImportError:
        sys.exit("OpenMM is not installed here: this table needs it, with its CUDA platform")
    names = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
    if "CUDA" not in names:
        failures = "; ".join(openmm.Platform.getPluginLoadFailures()) or "no plugin failed to load"
        sys.exit(
            f"OpenMM has no CUDA platform here (it has {', '.join(names)}; {failures}): pip install openmm[cuda13]"
        )
