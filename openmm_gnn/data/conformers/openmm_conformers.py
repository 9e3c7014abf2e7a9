"""Peptides, nucleic acids and proteins in OpenMM: minimised, then Langevin dynamics, temperature after temperature."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.data.conformers.settings import Maker, OpenMMDynamics, PeptideSettings, ProteinSettings, RandomSettings
from openmm_gnn.data.conformers.shards import Conformers
from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.systems.nucleic_acids import Strand, build_strand, random_strands
from openmm_gnn.md.systems.peptides import Peptide, build_peptide, random_peptides
from openmm_gnn.md.systems.protein_structures import Protein, read_protein

if TYPE_CHECKING:
    import openmm
    from openmm import app

_ATTEMPTS = 5
"""How often a molecule is built anew when its run breaks."""
_FARTHEST_NM = 100.0

Build = Callable[[np.random.Generator], "tuple[app.Topology, np.ndarray]"]
"""Topology with hydrogens and positions (num_atoms, 3), nm, to start from."""


class RandomMaker(Maker):
    """Random peptides or strands of nucleic acids; molecule k is the same however many are made."""

    usual = 300

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings
        drawn = (settings.shortest, settings.longest, settings.seed)
        self._more: Iterator[Peptide | Strand] = (
            random_peptides(*drawn) if isinstance(settings, PeptideSettings) else random_strands(*drawn)
        )
        self._molecules: list[Peptide | Strand] = []

    def check(self, count: int, skip_bad: bool) -> None:
        while len(self._molecules) < count:
            self._molecules.append(next(self._more))

    def conformers(self, number: int) -> Conformers:
        self.check(number + 1, False)
        molecule = self._molecules[number]

        def build(generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
            if isinstance(molecule, Peptide):
                return with_hydrogens(*build_peptide(molecule, generator), generator)
            return with_hydrogens(*build_strand(molecule, generator), generator)

        sequence = molecule.sequence if isinstance(molecule, Peptide) else molecule.name
        return conformers_in_openmm(molecule.name, sequence, build, self.settings, number)


class ProteinMaker(Maker):
    """Run k is one of structure k modulo their number; other velocities each time."""

    def __init__(self, settings: ProteinSettings, structures: Sequence[Path], skip_bad: bool) -> None:
        if not structures:
            raise SpecError("no structures were given: give a PDB or PDBx/mmCIF file with --structure")
        self.settings = settings
        self.skipped: list[str] = []
        self.proteins: list[Protein] = []
        for path in structures:
            try:
                self.proteins.append(self._accepted(path))
            except DataError as error:
                if not skip_bad:
                    raise
                self.skipped.append(str(error))
        if not self.proteins:
            raise DataError(f"all {len(structures)} structures were left out, the first one because {self.skipped[0]}")
        self.usual = len(self.proteins)

    def _accepted(self, path: Path) -> Protein:
        protein = read_protein(path)
        if protein.benchmark is not None and not self.settings.allow_held_out:
            raise DataError(
                f"{path} is {protein.benchmark}, on which encoders are tested: leave it out, or train on it with "
                "--allow-held-out and test on others"
            )
        return protein

    @property
    def remarks(self) -> dict[str, Any]:
        """Residues that were left out, by structure."""
        return {"dropped_residues": {protein.name: protein.dropped for protein in self.proteins if protein.dropped}}

    def conformers(self, number: int) -> Conformers:
        protein = self.proteins[number % len(self.proteins)]

        def build(generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
            return with_hydrogens(protein.topology, protein.positions, generator)

        return conformers_in_openmm(protein.name, protein.sequence, build, self.settings, number)


def conformers_in_openmm(name: str, sequence: str, build: Build, settings: OpenMMDynamics, number: int) -> Conformers:
    """Frames of the molecule that `build` makes, the same for the same seed and number.

    Raises:
        NonFiniteError: if the molecule blows up however it is built.
    """
    import openmm

    for attempt in range(_ATTEMPTS):
        generator = np.random.default_rng([settings.seed, number, attempt])
        try:
            topology, start = build(generator)
            frames = _run(_context(topology, start, settings, generator), settings)
        except (openmm.OpenMMException, NonFiniteError) as error:
            broken: Exception = error
            continue
        atoms = list(topology.atoms())
        return Conformers(
            name=name,
            sequence=sequence,
            atomic_numbers=np.array([atom.element.atomic_number for atom in atoms]),
            positions=frames,
            temperatures=np.array(settings.frame_temperatures),
            residue_index=np.array([atom.residue.index for atom in atoms]),
        )
    raise NonFiniteError(f"{name} broke {_ATTEMPTS} times, the last time with: {broken}; shorten the time step")


def _context(
    topology: app.Topology, positions: Any, settings: OpenMMDynamics, generator: np.random.Generator
) -> openmm.Context:
    import openmm

    system = in_implicit_solvent(topology, settings.force_field)
    integrator = openmm.LangevinMiddleIntegrator(
        settings.temperatures[0], settings.friction_per_ps, settings.time_step_ps
    )
    integrator.setRandomNumberSeed(int(generator.integers(1, 2**31)))
    platform = openmm.Platform.getPlatformByName(settings.platform)
    properties = {"Threads": "1", "DeterministicForces": "true"} if settings.platform == "CPU" else {}
    context = openmm.Context(system, integrator, platform, properties)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, tolerance=10, maxIterations=200)
    context.setVelocitiesToTemperature(settings.temperatures[0], int(generator.integers(1, 2**31)))
    return context


def _run(context: openmm.Context, settings: OpenMMDynamics) -> np.ndarray:
    """(frames, atoms, 3) float32, nm, centred; NonFiniteError if the molecule flies apart."""
    from openmm import unit

    integrator, frames = context.getIntegrator(), []
    for kelvin in settings.temperatures:
        integrator.setTemperature(kelvin)
        integrator.step(settings.steps_per_frame)
        for _ in range(settings.frames):
            integrator.step(settings.steps_per_frame)
            positions = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            positions = positions - positions.mean(axis=0)
            if not (np.abs(positions) < _FARTHEST_NM).all():
                raise NonFiniteError(f"an atom left the molecule at {kelvin:g} K")
            frames.append(positions.astype(np.float32))
    return np.stack(frames)
