"""Random strands of DNA and RNA: sequences, and coordinates built from internal ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.md.systems.nucleotide_geometry import FIRST_START, NucleotideTorsions, next_start, sugar_and_base
from openmm_gnn.md.systems.peptides import CLASH, clashes

if TYPE_CHECKING:
    from openmm import app

LETTERS = {"DNA": "ACGT", "RNA": "ACGU"}
_ATTEMPTS = 100
_TRIES = 50
"""Number of times that the torsions of one nucleotide are drawn."""
_PHOSPHATE = ("P", "OP1", "OP2", "O5'")


@dataclass(frozen=True)
class Strand:
    """A single strand with hydroxyl groups at both ends."""

    sequence: str
    """One-letter codes from the 5' end."""
    acid: str = "DNA"
    """Or RNA."""

    def __post_init__(self) -> None:
        if self.acid not in LETTERS or not self.sequence or set(self.sequence) - set(LETTERS[self.acid]):
            raise SpecError(
                f"the strand is {self.acid} of {self.sequence!r}: give DNA of the letters ACGT, or RNA of ACGU"
            )

    @property
    def name(self) -> str:
        """Such as 'DNA GATTAC'."""
        return f"{self.acid} {self.sequence}"


def random_strands(shortest: int, longest: int, seed: int) -> Iterator[Strand]:
    """Strands without end, none twice, DNA and RNA, lengths and bases equally likely; the same ones for the same seed.

    Raises:
        SpecError: for lengths that make no sense, or when hardly a new strand is left.
    """
    if not 1 <= shortest <= longest:
        raise SpecError(f"the lengths are {shortest} to {longest} nucleotides: give 1 or more, the shorter one first")
    generator = np.random.default_rng([seed, shortest, longest])
    seen: set[Strand] = set()
    while True:
        for _ in range(1000):
            acid = ("DNA", "RNA")[int(generator.integers(2))]
            length = int(generator.integers(shortest, longest + 1))
            strand = Strand("".join(generator.choice(list(LETTERS[acid]), length)), acid)
            if strand not in seen:
                break
        else:
            raise SpecError(
                f"after {len(seen)} strands hardly another of {shortest} to {longest} nucleotides is left: ask for "
                "fewer, or for longer ones"
            )
        seen.add(strand)
        yield strand


def build_strand(strand: Strand, generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (num_atoms, 3), nm, of the heavy atoms; torsions are random, without clashes.

    Raises:
        NonFiniteError: if no arrangement without clashes was found.
    """
    for _ in range(_ATTEMPTS):
        residues = _placed(strand, generator)
        if residues is None:
            continue
        topology = _topology(strand, residues)
        positions = np.concatenate([np.stack(list(atoms.values())) for atoms in residues])
        if not clashes(topology, positions):
            return topology, positions / ANGSTROM_PER_NM
    raise NonFiniteError(f"{strand.name} could not be built without clashes in {_ATTEMPTS} attempts: try another seed")


def random_torsions(acid: str, generator: np.random.Generator) -> NucleotideTorsions:
    """Torsions near the ranges that are met in crystals, those of the A and B helices most often."""

    def near(centers: tuple[float, ...], chances: tuple[float, ...], spread: float) -> float:
        return float(generator.choice(centers, p=chances) + spread * generator.standard_normal())

    north = 0.8 if acid == "RNA" else 0.25
    return NucleotideTorsions(
        alpha=near((-65.0, 70.0, 180.0), (0.7, 0.15, 0.15), 15.0),
        beta=near((180.0,), (1.0,), 20.0),
        gamma=near((55.0, 180.0, -60.0), (0.75, 0.2, 0.05), 10.0),
        epsilon=near((-155.0, -100.0), (0.8, 0.2), 15.0),
        zeta=near((-75.0, -140.0, 70.0), (0.6, 0.2, 0.2), 15.0),
        chi=near((-160.0, -115.0, 60.0), (0.45, 0.45, 0.1), 15.0),
        pucker=near((18.0, 162.0), (north, 1 - north), 10.0),
    )


def _placed(strand: Strand, generator: np.random.Generator) -> list[dict[str, np.ndarray]] | None:
    """Names and places (3,), angstrom, of the heavy atoms of each nucleotide; None if one finds no room."""
    residues: list[dict[str, np.ndarray]] = []
    for letter in strand.sequence:
        for _ in range(_TRIES):
            torsions = random_torsions(strand.acid, generator)
            start = next_start(residues[-1], torsions) if residues else FIRST_START
            atoms = sugar_and_base(start, torsions, letter, strand.acid == "RNA")
            if not residues or _has_room(atoms, residues):
                break
        else:
            return None
        residues.append(atoms)
    return residues


def _has_room(atoms: dict[str, np.ndarray], residues: list[dict[str, np.ndarray]]) -> bool:
    """Whether sugar and base keep clear of the nucleotides before; those near the phosphate are checked in the end."""
    new = np.stack([place for name, place in atoms.items() if name not in _PHOSPHATE])
    others = [place for residue in residues[:-1] for place in residue.values()]
    others += [place for name, place in residues[-1].items() if name not in ("C3'", "O3'")]
    distances = np.linalg.norm(new[:, None] - np.stack(others), axis=-1)
    return bool((distances > CLASH).all())


def _topology(strand: Strand, residues: list[dict[str, np.ndarray]]) -> app.Topology:
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain()
    for letter, atoms in zip(strand.sequence, residues, strict=True):
        residue = topology.addResidue(f"D{letter}" if strand.acid == "DNA" else letter, chain)
        for atom in atoms:
            topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
    topology.createStandardBonds()
    return topology
