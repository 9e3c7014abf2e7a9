"""Conformations of drug-like molecules: another conformer of RDKit for each temperature, then dynamics under MMFF94."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.data.conformers.conformer_settings import Dynamics
from openmm_gnn.data.conformers.shard_writing import Conformers
from openmm_gnn.data.conformers.small_molecules import (
    DRUGS,
    SmilesLine,
    canonical,
    embedded,
    langevin,
    molecule_of,
    read_smiles,
)

_FARTHEST_NM = 10.0


@dataclass(frozen=True)
class MoleculeSettings(Dynamics):
    """Molecules of a file of SMILES, or approved drugs; in vacuum, all bonds free."""

    KIND: ClassVar[str] = "molecules"
    time_step_ps: float = 0.001

    def maker(self, inputs: Sequence[Path] = (), skip_bad: bool = False) -> MoleculeMaker:
        return MoleculeMaker(self, read_smiles(inputs or [DRUGS]))


class MoleculeMaker:
    """Molecule k is the one of line k."""

    skipped: Sequence[str] = ()
    remarks: ClassVar[dict[str, Any]] = {}

    def __init__(self, settings: MoleculeSettings, lines: Sequence[SmilesLine]) -> None:
        self.settings = settings
        self.lines = lines

    @property
    def usual(self) -> int:
        return len(self.lines)

    def check(self, count: int, skip_bad: bool) -> None:
        if count > len(self.lines):
            raise SpecError(f"{count} molecules are asked for and {len(self.lines)} are given: ask for fewer")
        for line in self.lines[:count] if not skip_bad else ():
            molecule_of(line)

    def conformers(self, number: int) -> Conformers:
        line, settings = self.lines[number], self.settings
        molecule = molecule_of(line)
        generator = np.random.default_rng([settings.seed, number])
        starts = embedded(molecule, len(settings.temperatures), int(generator.integers(1, 2**31)))
        frames = []
        steps = (settings.steps_per_frame, settings.steps_per_frame)
        for k, kelvin in enumerate(settings.temperatures):
            run = langevin(
                molecule,
                starts[k % len(starts)],
                kelvin,
                steps,
                settings.time_step_ps,
                settings.friction_per_ps,
                generator,
            )
            for positions in islice(run, settings.frames):
                centred = (positions - positions.mean(axis=0)) / ANGSTROM_PER_NM
                if not (np.abs(centred) < _FARTHEST_NM).all():
                    raise NonFiniteError(f"{line.place}: {line.name} flew apart at {kelvin:g} K: shorten the time step")
                frames.append(centred)
        return Conformers(
            name=line.name,
            sequence=canonical(molecule),
            atomic_numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()]),
            positions=np.stack(frames),
            temperatures=np.array(settings.frame_temperatures),
        )
