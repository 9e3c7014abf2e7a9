"""What of a structure file is protein, made ready for a force field: nothing missing, nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.md.systems.peptides import HELD_OUT, RESIDUE_NAMES, SIDE_CHAINS, place
from openmm_gnn.md.systems.structure_files import read_structure

if TYPE_CHECKING:
    from openmm import app

_PROTONATED = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "HIS"),
    **{"ASH": "ASP", "GLH": "GLU", "LYN": "LYS", "CYX": "CYS", "CYM": "CYS"},
}
"""Names that force fields give to residues by their hydrogens, which are made anew."""
_CAPS = {"ACE": ("CH3", "C", "O"), "NME": ("N", "C")}
_LETTERS = {name: letter for letter, name in RESIDUE_NAMES.items()}
_BACKBONE = ("N", "CA", "C", "O")
_PEPTIDE_BOND_NM = 0.2
"""A longer one is a gap."""
_SHARED = 8
"""So many residues in a row make a protein one of the benchmarks; four, as for peptides, happen by chance."""


@dataclass(frozen=True)
class Protein:
    """The heavy atoms of a protein, complete."""

    name: str
    sequence: str
    """One-letter codes, chains separated by a slash."""
    topology: app.Topology
    positions: np.ndarray
    """(num_atoms, 3) nm."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Residues of each name that were left out: water, ions, ligands."""

    @property
    def benchmark(self) -> str | None:
        """Name of the benchmark whose sequence it has, or eight residues of."""
        for name, entry in HELD_OUT.items():
            for known in entry.split():
                for chain in self.sequence.split("/"):
                    windows = [known[k : k + _SHARED] for k in range(len(known) - _SHARED + 1)]
                    if chain == known or any(window in chain for window in windows):
                        return name
        return None


def read_protein(path: Path) -> Protein:
    """The protein in a PDB or PDBx/mmCIF file, without hydrogens, water, ions and ligands.

    A carboxylate oxygen that is missing at the end of a chain is added.

    Raises:
        DataError: if the file cannot be read, holds no protein, heavy atoms are missing, or a chain has a gap.
    """
    from openmm import app

    topology, positions = read_structure(path)
    new, atoms, placed, missing = app.Topology(), {}, [], []
    dropped: Counter[str] = Counter()
    chains: list[str] = []
    for chain in topology.chains():
        kept = [residue for residue in chain.residues() if _known(residue.name)]
        dropped.update(residue.name for residue in chain.residues() if not _known(residue.name))
        if not kept:
            continue
        copy = new.addChain(chain.id)
        chains.append("".join(_LETTERS.get(_plain(residue.name), "") for residue in kept))
        for residue in kept:
            heavy = {
                atom.name: atom for atom in residue.atoms() if atom.element is not None and atom.element.symbol != "H"
            }
            wanted = _heavy_atoms(_plain(residue.name))
            missing += [f"{atom} of {_label(residue)}" for atom in wanted if atom not in heavy]
            added = new.addResidue(_plain(residue.name), copy, residue.id)
            if residue is kept[-1] and residue.name not in _CAPS:
                wanted = (*wanted, "OXT")
            for atom_name in wanted:
                if atom_name in heavy:
                    atoms[heavy[atom_name].index] = new.addAtom(atom_name, heavy[atom_name].element, added)
                    placed.append(positions[heavy[atom_name].index])
                elif atom_name == "OXT" and all(anchor in heavy for anchor in _BACKBONE):
                    new.addAtom("OXT", app.element.oxygen, added)
                    placed.append(_carboxylate_oxygen(*(positions[heavy[anchor].index] for anchor in _BACKBONE)))
    if not chains:
        raise DataError(f"{path} holds no protein: it has {dict(dropped)}, give a file with amino acids")
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} heavy atoms: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}: "
            "complete it, with PDBFixer for example, or leave it out with --skip-bad"
        )
    found = np.stack(placed)
    new.createStandardBonds()
    _check_gaps(new, found, path)
    for first, second in topology.bonds():
        if first.name == second.name == "SG" and first.index in atoms and second.index in atoms:
            new.addBond(atoms[first.index], atoms[second.index])
    return Protein(path.stem, "/".join(chains), new, found, dict(dropped))


def _plain(name: str) -> str:
    return _PROTONATED.get(name, name)


def _known(name: str) -> bool:
    return name in _CAPS or _plain(name) in _LETTERS


def _heavy_atoms(name: str) -> tuple[str, ...]:
    return _CAPS[name] if name in _CAPS else (*_BACKBONE, *(atom.name for atom in SIDE_CHAINS[name]))


def _label(residue: app.Residue) -> str:
    return f"{residue.name}{residue.id} in chain {residue.chain.id}"


def _carboxylate_oxygen(nitrogen: np.ndarray, alpha: np.ndarray, carbon: np.ndarray, oxygen: np.ndarray) -> np.ndarray:
    """(3,) nm, opposite to the other one."""
    anchors = ANGSTROM_PER_NM * np.stack([oxygen, alpha, carbon])
    return place(anchors, 1.25, 117.0, 180.0) / ANGSTROM_PER_NM


def _check_gaps(topology: app.Topology, positions: np.ndarray, path: Path) -> None:
    for chain in topology.chains():
        residues = list(chain.residues())
        for before, after in itertools.pairwise(residues):
            ends = [atom.index for atom in before.atoms() if atom.name == "C"]
            ends += [atom.index for atom in after.atoms() if atom.name == "N"]
            if len(ends) < 2 or np.linalg.norm(positions[ends[0]] - positions[ends[1]]) > _PEPTIDE_BOND_NM:
                raise DataError(
                    f"{path} has a gap between {_label(before)} and {_label(after)}: complete it, with PDBFixer for "
                    "example, or leave it out with --skip-bad"
                )
