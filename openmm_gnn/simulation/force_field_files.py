"""Systems made from a structure and force-field files, OpenMM's own (amber14-all.xml) or the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.errors import DataError, SpecError, TopologyError
from openmm_gnn.simulation.run_settings import Thermostat
from openmm_gnn.simulation.simulation_system import SimulationSystem
from openmm_gnn.simulation.structure_files import read_structure

if TYPE_CHECKING:
    import openmm
    from openmm import app


class Constraints(str, Enum):
    """Which bond lengths are fixed."""

    NONE = "none"
    H_BONDS = "h-bonds"
    ALL_BONDS = "all-bonds"


@dataclass(frozen=True)
class ForceFieldSettings:
    """How a System is made of a structure: force-field files and what they leave open."""

    files: tuple[str, ...]
    """Names that OpenMM knows, such as amber14-all.xml and amber14/tip3pfb.xml, or paths."""
    nonbonded_cutoff: float = 1.0
    """nm; of the real-space part of particle mesh Ewald. Without a box there is no cutoff."""
    constraints: Constraints = Constraints.H_BONDS
    rigid_water: bool = True

    def __post_init__(self) -> None:
        files = (self.files,) if isinstance(self.files, str) else self.files
        object.__setattr__(self, "files", tuple(str(file) for file in files))
        object.__setattr__(self, "constraints", Constraints(self.constraints))
        if not self.files:
            raise SpecError("no force-field file was given: name at least one, such as amber14-all.xml")
        if not self.nonbonded_cutoff > 0:
            raise SpecError(f"nonbonded_cutoff is {self.nonbonded_cutoff} nm: give a length above 0")


def system_from_structure(path: Path, settings: ForceFieldSettings) -> SimulationSystem:
    """The System that force-field files make of a PDB or PDBx/mmCIF file.

    Particle mesh Ewald where the structure has a box, no cutoff where it has none. Particles that the force field
    needs and the structure lacks, such as charge sites, are added. Runs start from the structure with its clashes
    relaxed. Where bonds of hydrogen are free to vibrate, the bonded forces are computed four times in a time step.

    Raises:
        DataError: if a file is missing or cannot be read.
        TopologyError: if the force field does not know a residue, or the box is narrower than twice the cutoff.
    """
    from openmm import app, unit

    topology, positions = read_structure(path)
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        width = min(float(vector[axis].value_in_unit(unit.nanometer)) for axis, vector in enumerate(box))
        if width < 2 * settings.nonbonded_cutoff:
            raise TopologyError(
                f"the box of {path} is {width:.3f} nm wide, less than twice the cutoff of "
                f"{settings.nonbonded_cutoff:g} nm: give a cutoff of at most {width / 2:.3f} nm, or a larger box"
            )
    force_field = _read_force_field(settings.files)
    try:
        modeller = app.Modeller(topology, positions * unit.nanometer)
        modeller.addExtraParticles(force_field)
        system = force_field.createSystem(
            modeller.topology,
            nonbondedMethod=app.NoCutoff if box is None else app.PME,
            nonbondedCutoff=settings.nonbonded_cutoff * unit.nanometer,
            constraints={Constraints.H_BONDS: app.HBonds, Constraints.ALL_BONDS: app.AllBonds}.get(
                settings.constraints
            ),
            rigidWater=settings.rigid_water,
        )
    except Exception as error:  # OpenMM raises ValueError, KeyError and plain Exceptions
        raise TopologyError(
            f"{' and '.join(settings.files)} cannot make a System of {path}: {str(error) or type(error).__name__}"
        ) from error
    start = np.array(modeller.positions.value_in_unit(unit.nanometer))
    flexible = settings.constraints is Constraints.NONE or not settings.rigid_water
    return SimulationSystem(
        name=path.stem,
        system=system,
        topology=modeller.topology,
        positions=start,
        thermostat=Thermostat.LANGEVIN,
        bonded_substeps=4 if flexible else 1,
        prepare=_relaxed(system, start),
    )


def _read_force_field(files: tuple[str, ...]) -> app.ForceField:
    from openmm import app

    try:
        return app.ForceField(*files)
    except Exception as error:  # OpenMM raises plain Exceptions that name the file
        if "Could not locate file" in str(error):
            missing = next((file for file in files if f'"{file}"' in str(error)), files[0])
            raise DataError(
                f"there is no force-field file {missing}: give a path, or a file of OpenMM such as amber14-all.xml"
            ) from error
        raise DataError(f"the force-field files {list(files)} cannot be read together: {error}") from error


def _relaxed(system: openmm.System, positions: np.ndarray) -> Callable[[int], np.ndarray]:
    """Starting positions for any seed: the same for all, minimised once, when first asked for."""

    @cache
    def minimised() -> np.ndarray:
        import openmm
        from openmm import unit

        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
        )
        context.setPositions(positions)
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        openmm.LocalEnergyMinimizer.minimize(context, 100.0, 200)
        state = context.getState(positions=True)
        return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    return lambda seed: minimised()
