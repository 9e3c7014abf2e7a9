"""How long and how often a validation looks: its settings, and what they are where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_gnn.base.errors import SettingsError, positive, whole

FULL_SIZES = (258, 887, 2094, 4085, 13786, 24093)
"""Molecules; those of table 3 of the GAMD paper, J. Chem. Phys. 156, 144103 (2022)."""
QUICK_SIZES = (258, 887, 2094)
_FULL = {"stability_ps": 100.0, "constant_energy_ps": 10.0, "num_probes": 32, "sizes": FULL_SIZES}
_QUICK = {"stability_ps": 2.0, "constant_energy_ps": 1.0, "num_probes": 12, "sizes": QUICK_SIZES}


@dataclass(frozen=True)
class ValidationSettings:
    """How long and how often to look. What is None takes its value from `quick`."""

    quick: bool = False
    """Take shorter runs and smaller boxes, a few minutes in all."""
    stability_ps: float | None = None
    """Length of the run with a thermostat, ps. Default: 100, with quick 2."""
    constant_energy_ps: float | None = None
    """Length of the run at constant energy, ps. Default: 10, with quick 1."""
    num_probes: int | None = None
    """Random directions in which the Jacobian of the forces is measured. Default: 32, with quick 12."""
    sizes: tuple[int, ...] | None = None
    """Molecules per box, for the transfer of a named system to other box sizes; none: left out. Default: 258 to 24093,
    with quick to 2094."""
    frames: int = 4
    """Frames for the checks of single forces."""
    seeds: tuple[int, ...] = ()
    """Trajectories of the data to take frames from, by their seeds. Default: those that were not trained on."""
    seed: int = 1
    """Random seed of the velocities and probes."""
    platform: str = "auto"
    """OpenMM platform; auto: CUDA where it works, else CPU."""
    backend: str = "auto"
    """Backend of the network's force: auto, torchforce or pythonforce."""

    def __post_init__(self) -> None:
        for name, value in (_QUICK if self.quick else _FULL).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        positive(self, "stability_ps", "constant_energy_ps")
        whole(self, 3, "num_probes")
        whole(self, 1, "frames", "seed")
        if any(size < 1 for size in self.sizes or ()):
            raise SettingsError(self, "sizes", "give numbers of molecules, 1 or more")

    @property
    def equilibration_ps(self) -> float:
        """Time before the first frame of the teacher's run, at most."""
        return 2.0 if self.quick else 20.0
