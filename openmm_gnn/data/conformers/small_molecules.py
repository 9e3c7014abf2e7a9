"""Drug-like molecules from SMILES: a conformer of RDKit for each temperature, then dynamics under MMFF94.

Embedding: Wang et al., J. Chem. Inf. Model. 60, 2044 (2020), ETKDGv3, DOI 10.1021/acs.jcim.0c00025. Force field:
Halgren, J. Comput. Chem. 17, 490 (1996), MMFF94, which knows most of H, C, N, O, F, P, S, Cl, Br and I.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.data.conformers.settings import Maker, MoleculeSettings
from openmm_gnn.data.conformers.shards import Conformers

if TYPE_CHECKING:
    from ase import Atoms
    from rdkit import Chem

DRUGS = Path(str(files("openmm_gnn") / "data" / "conformers" / "drugs.smi"))
"""Approved drugs by their common names."""
_FARTHEST_NM = 10.0


class SmilesLine(NamedTuple):
    """A molecule as it stands in a file."""

    text: str
    name: str
    place: str
    """File and line, for errors."""


def read_smiles(paths: Sequence[Path]) -> list[SmilesLine]:
    """Every line that is neither empty nor a remark (#): SMILES, then perhaps a name.

    Raises:
        DataError: if a file cannot be read or there is no molecule in them.
    """
    lines: list[SmilesLine] = []
    for path in paths:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}): give a text file of SMILES") from error
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                smiles, _, name = line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
                place = f"{path} line {number}"
                lines.append(SmilesLine(smiles, name.strip() or f"{path.stem} {number}", place))
    if not lines:
        raise DataError(f"there is no molecule in {[str(path) for path in paths]}: write one SMILES in a line")
    return lines


def molecule_of(line: SmilesLine) -> Chem.Mol:
    """The molecule with its hydrogens.

    Raises:
        DataError: if it is no SMILES, several molecules at once, or MMFF94 has no parameters for it.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdForceFieldHelpers

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(line.text)
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise DataError(f"{line.place}: {line.text!r} is no SMILES; mend it, or leave it out with --skip-bad")
        if parts := len(Chem.GetMolFrags(molecule)) - 1:
            raise DataError(
                f"{line.place}: {line.name} is of {parts + 1} parts: give one of them, or leave it out with --skip-bad"
            )
        molecule = Chem.AddHs(molecule)
        if not rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            raise DataError(
                f"{line.place}: MMFF94 has no parameters for {line.name} ({line.text}): leave it out with --skip-bad"
            )
    return molecule


def canonical(molecule: Chem.Mol) -> str:
    """The SMILES that is the same for the same molecule, however it was written."""
    from rdkit import Chem

    return Chem.MolToSmiles(Chem.RemoveHs(molecule))


def embedded(molecule: Chem.Mol, count: int, seed: int) -> list[int]:
    """Put conformers into a molecule, minimised; their ids, at least one.

    Raises:
        NonFiniteError: if RDKit finds no conformer of it.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.numThreads = 1
    with rdBase.BlockLogs():
        found = list(rdDistGeom.EmbedMultipleConfs(molecule, count, parameters))
        if not found:
            parameters.useRandomCoords = True
            found = list(rdDistGeom.EmbedMultipleConfs(molecule, count, parameters))
        if not found:
            raise NonFiniteError(f"RDKit finds no conformer of {canonical(molecule)}: leave it out with --skip-bad")
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, numThreads=1, maxIters=500)
    return found


class MMFF94:
    """The force field of a molecule as ASE asks for it: energies in eV, forces in eV/angstrom, (num_atoms, 3).

    Not a `Calculator` of ASE: that compares all about the atoms with the last ones at every step, which takes longer
    than the forces.
    """

    def __init__(self, molecule: Chem.Mol) -> None:
        from ase import units
        from rdkit.Chem import rdForceFieldHelpers

        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
        self._force_field = rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, properties)
        self._unit = units.kcal / units.mol

    def get_potential_energy(self, atoms: Atoms, force_consistent: bool = False) -> float:
        return self._unit * float(self._force_field.CalcEnergy(atoms.positions.ravel().tolist()))

    def get_forces(self, atoms: Atoms) -> np.ndarray:
        coordinates = atoms.positions.ravel().tolist()
        # RDKit's gradient takes the distances between atoms from the last energy, wherever they were then (2026.9).
        self._force_field.CalcEnergy(coordinates)
        return -self._unit * np.array(self._force_field.CalcGrad(coordinates)).reshape(-1, 3)


def langevin(
    molecule: Chem.Mol,
    conformer: int,
    kelvin: float,
    steps: tuple[int, int],
    time_step_ps: float,
    friction_per_ps: float,
    generator: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Positions (num_atoms, 3), angstrom, of dynamics under MMFF94 in vacuum, without end.

    Args:
        steps: before the first frame, and between two.
    """
    from ase import Atoms, units
    from ase.md.langevin import Langevin

    atoms = Atoms(
        numbers=[atom.GetAtomicNum() for atom in molecule.GetAtoms()],
        positions=molecule.GetConformer(conformer).GetPositions(),
    )
    atoms.calc = MMFF94(molecule)
    spread = np.sqrt(units.kB * kelvin * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * generator.standard_normal((len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        timestep=1000 * time_step_ps * units.fs,
        temperature_K=kelvin,
        friction=friction_per_ps / (1000 * units.fs),
        fixcm=False,
        rng=generator,
    )
    dynamics.run(steps[0])
    while True:
        dynamics.run(steps[1])
        yield np.array(atoms.positions)


class MoleculeMaker(Maker):
    """Molecules of SMILES; molecule k is the one of line k."""

    def __init__(self, settings: MoleculeSettings, lines: Sequence[SmilesLine]) -> None:
        self.settings = settings
        self.lines = lines
        self.usual = len(lines)

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
