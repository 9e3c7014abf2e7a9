"""Random strands of DNA and RNA, built atom by atom: bases as rigid planes, sugars by their pucker, torsions at random.

Bases: Olson et al., J. Mol. Biol. 313, 229 (2001), standard reference frame, DOI 10.1006/jmbi.2001.4987. Pucker: Altona
and Sundaralingam, J. Am. Chem. Soc. 94, 8205 (1972), eq. 1, nu_j = nu_max cos(P + 144 (j - 2)). Lengths and angles are
rounded after Gelbin et al., J. Am. Chem. Soc. 118, 519 (1996): what is built is minimised in a force field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.systems.peptides import CLASH, Residues, each_once, place, without_clashes

if TYPE_CHECKING:
    from openmm import app

_BASES = {
    "A": "C1' -2.479 5.346 N9 -1.291 4.498 C8 0.024 4.897 N7 0.877 3.902 C5 0.071 2.771 C6 0.369 1.398 N6 1.611 0.909 "
    "N1 -0.668 0.532 C2 -1.912 1.023 N3 -2.320 2.290 C4 -1.267 3.124",
    "G": "C1' -2.477 5.399 N9 -1.289 4.551 C8 0.023 4.962 N7 0.870 3.969 C5 0.071 2.833 C6 0.424 1.460 O6 1.554 0.955 "
    "N1 -0.700 0.641 C2 -1.999 1.087 N2 -2.949 0.139 N3 -2.342 2.364 C4 -1.265 3.177",
    "C": "C1' -2.477 5.402 N1 -1.285 4.542 C2 -1.472 3.158 O2 -2.628 2.709 N3 -0.391 2.344 C4 0.837 2.868 "
    "N4 1.875 2.027 C5 1.056 4.275 C6 -0.023 5.068",
    "T": "C1' -2.481 5.354 N1 -1.284 4.500 C2 -1.462 3.135 O2 -2.562 2.608 N3 -0.298 2.407 C4 0.994 2.897 "
    "O4 1.944 2.119 C5 1.106 4.338 C7 2.466 4.961 C6 -0.024 5.057",
    "U": "C1' -2.481 5.354 N1 -1.284 4.500 C2 -1.462 3.131 O2 -2.563 2.608 N3 -0.302 2.397 C4 0.989 2.884 "
    "O4 1.935 2.094 C5 1.089 4.311 C6 -0.024 5.053",
}
"""Names and places in their plane, angstrom."""
_LARGEST_PUCKER = 37.0
"""nu_max, degrees."""


@dataclass(frozen=True)
class NucleotideTorsions:
    """What is free in a nucleotide and in the bonds by which it hangs on the one before; degrees."""

    epsilon: float
    """With zeta, of the nucleotide before."""
    zeta: float
    alpha: float
    beta: float
    gamma: float
    chi: float
    pucker: float
    """Phase P: 18 for C3'-endo, 162 for C2'-endo."""

    def ring(self, number: int) -> float:
        """The ring's torsion nu of this number, 0 to 4."""
        return _LARGEST_PUCKER * math.cos(math.radians(self.pucker + 144.0 * (number - 2)))

    @property
    def delta(self) -> float:
        """C5'-C4'-C3'-O3', which the pucker decides: substituents stand 120 degrees from the ring's atoms."""
        return self.ring(3) + 120.0


FIRST_START = {"O5'": np.zeros(3), "C5'": np.array([1.43, 0.0, 0.0]), "C4'": np.array([1.95, 1.42, 0.0])}
"""Where a strand begins, angstrom."""


def base_atoms(letter: str) -> dict[str, np.ndarray]:
    """Places of C1' and the base's atoms, (3,) angstrom, in the plane z = 0; letters A, C, G, T, U."""
    words = _BASES[letter].split()
    return {words[k]: np.array([float(words[k + 1]), float(words[k + 2]), 0.0]) for k in range(0, len(words), 3)}


def sugar_and_base(
    start: dict[str, np.ndarray], torsions: NucleotideTorsions, letter: str, hydroxyl: bool
) -> dict[str, np.ndarray]:
    """The nucleotide whose O5', C5' and C4' are given: names and places (3,), angstrom, without its phosphate.

    Args:
        hydroxyl: RNA has an oxygen at C2'.
    """
    atoms = dict(start)

    def add(name: str, far: str, middle: str, near: str, length: float, angle: float, torsion: float) -> None:
        atoms[name] = place(np.stack([atoms[far], atoms[middle], atoms[near]]), length, angle, torsion)

    delta = torsions.delta
    add("C3'", "O5'", "C5'", "C4'", 1.525, 115.0, torsions.gamma)
    add("O3'", "C5'", "C4'", "C3'", 1.42, 110.0, delta)
    add("O4'", "O3'", "C3'", "C4'", 1.45, 105.0, delta + 120.0)
    add("C2'", "C5'", "C4'", "C3'", 1.525, 102.5, delta + 120.0)
    add("C1'", "C4'", "C3'", "C2'", 1.525, 101.5, torsions.ring(2))
    if hydroxyl:
        add("O2'", "C4'", "C3'", "C2'", 1.41, 112.0, torsions.ring(2) - 120.0)
    plane = base_atoms(letter)
    bound, beyond = ("N9", "C4") if "N9" in plane else ("N1", "C2")
    add(bound, "C3'", "C2'", "C1'", 1.47, 114.0, torsions.ring(1) + 120.0)
    angle = _angle(plane["C1'"], plane[bound], plane[beyond])
    add(beyond, "O4'", "C1'", bound, float(np.linalg.norm(plane[beyond] - plane[bound])), angle, torsions.chi)
    there = _frame(atoms["C1'"], atoms[bound], atoms[beyond])
    here = _frame(plane["C1'"], plane[bound], plane[beyond])
    for name, position in plane.items():
        if name != "C1'":
            atoms[name] = atoms[bound] + (position - plane[bound]) @ here.T @ there
    return atoms


def next_start(atoms: dict[str, np.ndarray], torsions: NucleotideTorsions) -> dict[str, np.ndarray]:
    """Phosphate, O5', C5' and C4' of the nucleotide that follows on these atoms."""
    phosphorus = place(np.stack([atoms["C4'"], atoms["C3'"], atoms["O3'"]]), 1.61, 120.0, torsions.epsilon)
    around = np.stack([atoms["C3'"], atoms["O3'"], phosphorus])
    oxygen = place(around, 1.59, 104.0, torsions.zeta)
    carbon = place(np.stack([atoms["O3'"], phosphorus, oxygen]), 1.43, 121.0, torsions.alpha)
    return {
        "P": phosphorus,
        "OP1": place(around, 1.48, 108.0, torsions.zeta + 120.0),
        "OP2": place(around, 1.48, 108.0, torsions.zeta - 120.0),
        "O5'": oxygen,
        "C5'": carbon,
        "C4'": place(np.stack([phosphorus, oxygen, carbon]), 1.51, 110.0, torsions.beta),
    }


def _angle(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> float:
    one, other = first - middle, last - middle
    return math.degrees(math.acos(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))))


def _frame(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> np.ndarray:
    """(3, 3) rows are unit vectors: along the first bond, normal to the plane, and what is left."""
    along = (first - middle) / np.linalg.norm(first - middle)
    normal = np.cross(along, last - middle)
    normal /= np.linalg.norm(normal)
    return np.stack([along, normal, np.cross(along, normal)])


LETTERS = {"DNA": "ACGT", "RNA": "ACGU"}
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
    """Strands of `each_once`, DNA and RNA, lengths and bases equally likely."""

    def draw(generator: np.random.Generator) -> Strand:
        acid = ("DNA", "RNA")[int(generator.integers(2))]
        length = int(generator.integers(shortest, longest + 1))
        return Strand("".join(generator.choice(list(LETTERS[acid]), length)), acid)

    return each_once(draw, lambda strand: strand.name, (shortest, longest), seed)


def build_strand(strand: Strand, generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (num_atoms, 3), nm, of the heavy atoms; torsions are random, without clashes.

    Raises:
        NonFiniteError: if no arrangement without clashes was found.
    """
    return without_clashes(lambda: _placed(strand, generator), strand.name)


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


def _placed(strand: Strand, generator: np.random.Generator) -> Residues | None:
    """The heavy atoms of each nucleotide; None if one finds no room."""
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
    prefix = "D" if strand.acid == "DNA" else ""
    return [(prefix + base, atoms) for base, atoms in zip(strand.sequence, residues, strict=True)]


def _has_room(atoms: dict[str, np.ndarray], residues: list[dict[str, np.ndarray]]) -> bool:
    """Whether sugar and base keep clear of the nucleotides before; those near the phosphate are checked in the end."""
    new = np.stack([place for name, place in atoms.items() if name not in _PHOSPHATE])
    others = [place for residue in residues[:-1] for place in residue.values()]
    others += [place for name, place in residues[-1].items() if name not in ("C3'", "O3'")]
    distances = np.linalg.norm(new[:, None] - np.stack(others), axis=-1)
    return bool((distances > CLASH).all())
