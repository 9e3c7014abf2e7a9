"""Random peptides: sequences that keep clear of benchmarks, and coordinates built from internal ones.

Lengths, angles and torsions are rounded after Engh and Huber, Acta Cryst. A 47, 392 (1991); the way of placing an atom:
Parsons et al., J. Comput. Chem. 26, 1063 (2005), "natural extension reference frame". They need not be better than 0.05
angstrom and a few degrees: what is built is minimised in a force field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM

if TYPE_CHECKING:
    from openmm import app

_NAMES = "ALA CYS ASP GLU PHE GLY HIS ILE LYS LEU MET ASN PRO GLN ARG SER THR VAL TRP TYR"
RESIDUE_NAMES = dict(zip("ACDEFGHIKLMNPQRSTVWY", _NAMES.split(), strict=True))
"""By one-letter code."""


class Placement(NamedTuple):
    """Where an atom stands: its distance to one atom, the angle with a second, the torsion with a third."""

    name: str
    element: str
    anchors: tuple[str, str, str]
    """The third, the second, and the first atom: A, B, C of the torsion A-B-C-new."""
    length: float
    """Angstrom."""
    angle: float
    """Degrees."""
    torsion: float
    """Degrees; added to the side chain's torsion number `chi`, if there is one."""
    chi: int
    """Index of a side-chain torsion, counted from 1; 0: the torsion is fixed."""


_SIDE_CHAINS = """
CYS SG N CA CB 1.81 114.0 chi1
ASP CG N CA CB 1.52 113 chi1; OD1 CA CB CG 1.25 119 chi2; OD2 CA CB CG 1.25 119 chi2+180
GLU CG N CA CB 1.52 114 chi1; CD CA CB CG 1.52 113 chi2; OE1 CB CG CD 1.25 119 chi3; OE2 CB CG CD 1.25 119 chi3+180
PHE CG N CA CB 1.50 114 chi1; CD1 CA CB CG 1.39 120.7 chi2; CD2 CA CB CG 1.39 120.7 chi2+180
PHE CE1 CB CG CD1 1.39 120.7 180; CE2 CB CG CD2 1.39 120.7 180; CZ CG CD1 CE1 1.39 120 0
HIS CG N CA CB 1.50 114 chi1; ND1 CA CB CG 1.38 122.7 chi2; CD2 CA CB CG 1.35 131 chi2+180
HIS CE1 CB CG ND1 1.32 109 180; NE2 CB CG CD2 1.37 107 180
ILE CG1 N CA CB 1.53 110.4 chi1; CG2 N CA CB 1.53 110.5 chi1-122; CD1 CA CB CG1 1.51 113.8 chi2
LYS CG N CA CB 1.52 114 chi1; CD CA CB CG 1.52 112 chi2; CE CB CG CD 1.52 112 chi3; NZ CG CD CE 1.49 112 chi4
LEU CG N CA CB 1.53 116 chi1; CD1 CA CB CG 1.52 110.5 chi2; CD2 CA CB CG 1.52 110.5 chi2+122
MET CG N CA CB 1.52 114 chi1; SD CA CB CG 1.81 112.7 chi2; CE CB CG SD 1.79 100.9 chi3
ASN CG N CA CB 1.52 113 chi1; OD1 CA CB CG 1.23 121 chi2; ND2 CA CB CG 1.33 116.5 chi2+180
PRO CG N CA CB 1.49 104.5 28; CD CA CB CG 1.50 105.5 -37
GLN CG N CA CB 1.52 114 chi1; CD CA CB CG 1.52 113 chi2; OE1 CB CG CD 1.23 121 chi3; NE2 CB CG CD 1.33 116.5 chi3+180
ARG CG N CA CB 1.52 114 chi1; CD CA CB CG 1.52 112 chi2; NE CB CG CD 1.46 112 chi3; CZ CG CD NE 1.33 124.5 chi4
ARG NH1 CD NE CZ 1.33 120 0; NH2 CD NE CZ 1.33 120 180
SER OG N CA CB 1.42 111 chi1
THR OG1 N CA CB 1.43 109.5 chi1; CG2 N CA CB 1.52 110.5 chi1-120
VAL CG1 N CA CB 1.52 110.5 chi1; CG2 N CA CB 1.52 110.5 chi1+122
TRP CG N CA CB 1.50 113.6 chi1; CD1 CA CB CG 1.37 127 chi2; CD2 CA CB CG 1.43 126.8 chi2+180
TRP NE1 CB CG CD1 1.37 110 180; CE2 CB CG CD2 1.41 107 180; CE3 CB CG CD2 1.40 134 0
TRP CZ2 CG CD2 CE2 1.39 122.4 180; CZ3 CG CD2 CE3 1.38 118.6 180; CH2 CD2 CE2 CZ2 1.37 117.5 0
TYR CG N CA CB 1.51 114 chi1; CD1 CA CB CG 1.39 120.8 chi2; CD2 CA CB CG 1.39 120.8 chi2+180
TYR CE1 CB CG CD1 1.38 121 180; CE2 CB CG CD2 1.38 121 180; CZ CG CD1 CE1 1.38 119.6 0; OH CD1 CE1 CZ 1.38 120 180
"""
"""Residue, then each atom with A, B and C of `Placement`, length, angle and torsion."""
_BETA_CARBON = Placement("CB", "C", ("N", "C", "CA"), 1.53, 110.1, 122.7, 0)
"""The torsion's sign makes the residue L."""


def _parsed(text: str) -> dict[str, tuple[Placement, ...]]:
    table: dict[str, tuple[Placement, ...]] = {
        name: (() if name == "GLY" else (_BETA_CARBON,)) for name in RESIDUE_NAMES.values()
    }
    for line in text.strip().splitlines():
        residue, rest = line.split(maxsplit=1)
        for entry in rest.split(";"):
            name, far, middle, near, length, angle, torsion = entry.split()
            chi = int(torsion[3]) if torsion.startswith("chi") else 0
            offset = float(torsion[4:] or 0) if chi else float(torsion)
            anchors = (far, middle, near)
            table[residue] += (Placement(name, name[0], anchors, float(length), float(angle), offset, chi),)
    return table


SIDE_CHAINS = _parsed(_SIDE_CHAINS)
"""Heavy atoms beyond the backbone of each residue, in an order in which each can be placed."""


def place(anchors: np.ndarray, length: float, angle: float, torsion: float) -> np.ndarray:
    """(3,) the atom D with |CD| = length, the angle B-C-D and the torsion A-B-C-D.

    Args:
        anchors: (3, 3), A, B and C in the unit of the length.
        angle, torsion: degrees.
    """
    first, second, third = anchors
    along = (third - second) / np.linalg.norm(third - second)
    normal = np.cross(second - first, along)
    normal /= np.linalg.norm(normal)
    theta, phi = math.radians(angle), math.radians(torsion)
    frame = np.stack([along, np.cross(normal, along), normal])
    local = np.array([-math.cos(theta), math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi)])
    return third + length * (local @ frame)


HELD_OUT = {
    "alanine dipeptide": "A",
    "pentapeptides": "AAAAA WLALL",
    "chignolin": "GYDPETGTWG YYDPETGTWY",
    "trp-cage": "NLYIQWLKDGGPSSGRPPPS DAYAQWLKDGGPSSGRPPPS",
    "villin": "MLSDEDFKAVFGMTRSAFANLPLWKQQNLKKEKGLF LSDEDFKAVFGMTRSAFANLPLXXQXNLKXXKGLX",
    "bpti": "RPDFCLEPPYTGPCKARIIRYFYNAKAGLCQTFVYGGCRAKRNNFKSAEDCMRTCGGA",
}
"""Molecules of tests and benchmarks, by sequence; none may be among those an encoder is trained on."""
_SHARED = 4
"""So many residues in a row of one of them are too many."""
_BASINS = np.array([(-63.0, -43.0), (-75.0, 150.0), (-120.0, 130.0), (57.0, 42.0)])
"""phi and psi of the right-handed helix, polyproline II, the strand, the left-handed helix; degrees."""
_CHANCES = np.array([0.35, 0.3, 0.3, 0.05])
CLASH = 2.5
"""Heavy atoms four bonds or more apart are not built closer than this, angstrom."""
_ATTEMPTS = 500


@dataclass(frozen=True)
class Peptide:
    """A sequence and what its ends are."""

    sequence: str
    """One-letter codes."""
    acetylated: bool = True
    """Begins with ACE; else with a charged amine."""
    methylated: bool = True
    """Ends with NME; else with a carboxylate."""

    def __post_init__(self) -> None:
        if not self.sequence or set(self.sequence) - set(RESIDUE_NAMES):
            letters = "".join(RESIDUE_NAMES)
            raise SpecError(f"the sequence is {self.sequence!r}: give one or more of the letters {letters}")

    @property
    def name(self) -> str:
        """Such as 'ACE-GW-NME', or 'GW-NME' for a free amine."""
        return ("ACE-" if self.acetylated else "") + self.sequence + ("-NME" if self.methylated else "")


def is_held_out(sequence: str) -> bool:
    """Whether a peptide is one of the benchmarks' molecules, or has four residues in a row of one."""
    proteins = [protein for entry in HELD_OUT.values() for protein in entry.split()]
    windows = {sequence[k : k + _SHARED] for k in range(len(sequence) - _SHARED + 1)}
    return sequence in proteins or any(window in protein for window in windows for protein in proteins)


Molecule = TypeVar("Molecule")


def each_once(
    draw: Callable[[np.random.Generator], Molecule],
    key: Callable[[Molecule], str],
    lengths: tuple[int, int],
    seed: int,
) -> Iterator[Molecule]:
    """Random molecules without end, none twice; the same ones for the same seed.

    Args:
        key: what makes two molecules the same.
        lengths: of the shortest and the longest, residues.
    Raises:
        SpecError: for lengths that make no sense, or when hardly a new molecule is left.
    """
    if not 1 <= lengths[0] <= lengths[1]:
        raise SpecError(f"the lengths are {lengths[0]} to {lengths[1]} residues: give 1 or more, the shorter one first")
    generator, seen = np.random.default_rng([seed, *lengths]), set[str]()
    while True:
        for _ in range(1000):
            molecule = draw(generator)
            if key(molecule) not in seen:
                break
        else:
            raise SpecError(
                f"after {len(seen)} molecules hardly another of {lengths[0]} to {lengths[1]} residues is left: ask for "
                "fewer, or for longer ones"
            )
        seen.add(key(molecule))
        yield molecule


def random_peptides(shortest: int, longest: int, seed: int) -> Iterator[Peptide]:
    """Peptides of `each_once`, lengths and residues equally likely, those of benchmarks left out.

    Ends are capped three times out of four, those of single residues always.
    """
    letters = sorted(RESIDUE_NAMES)

    def draw(generator: np.random.Generator) -> Peptide:
        length = int(generator.integers(shortest, longest + 1))
        sequence = "".join(generator.choice(letters, length))
        capped = [bool(end) for end in generator.random(2) < 0.75]
        return Peptide(sequence, *capped) if length > 1 else Peptide(sequence)

    every = each_once(draw, lambda peptide: peptide.sequence, (shortest, longest), seed)
    return (peptide for peptide in every if not is_held_out(peptide.sequence))


def build_peptide(peptide: Peptide, generator: np.random.Generator) -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (num_atoms, 3), nm, of the heavy atoms; torsions are random, without clashes.

    Raises:
        NonFiniteError: if no arrangement without clashes was found.
    """
    return without_clashes(lambda: _placed(peptide, generator), peptide.name)


def without_clashes(place_all: Callable[[], Residues | None], name: str) -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (num_atoms, 3), nm, of the first arrangement of residues in which no atoms clash.

    Raises:
        NonFiniteError: if there was none.
    """
    for _ in range(_ATTEMPTS):
        if (residues := place_all()) is None:
            continue
        topology = chain_topology(residues)
        positions = np.concatenate([np.stack(list(atoms.values())) for _, atoms in residues])
        if not clashes(topology, positions):
            return topology, positions / ANGSTROM_PER_NM
    raise NonFiniteError(f"{name} could not be built without clashes in {_ATTEMPTS} attempts: try another seed")


Residues = list[tuple[str, dict[str, np.ndarray]]]
"""Name, and positions (3,) by atom name, angstrom."""


def _placed(peptide: Peptide, generator: np.random.Generator) -> Residues:
    names = [RESIDUE_NAMES[letter] for letter in peptide.sequence]
    names = ["ACE"] * peptide.acetylated + names + ["NME"] * peptide.methylated
    residues: Residues = []
    nitrogen, alpha, carbonyl = np.array([[0.0, 0.0, 0.0], [1.46, 0.0, 0.0], [2.0, 1.42, 0.0]])
    last_psi = 0.0
    for number, name in enumerate(names):
        phi, psi = _phi_psi(name, generator)
        omega = 180 + 5 * generator.standard_normal()
        if number > 0:  # the first three atoms are there; those of ACE stand where N, CA and C would
            nitrogen = place(np.stack([nitrogen, alpha, carbonyl]), 1.33, 116.5, last_psi)
            alpha = place(np.stack([alpha, carbonyl, nitrogen]), 1.46, 121.5, omega)
            carbonyl = place(np.stack([carbonyl, nitrogen, alpha]), 1.525, 111.0, phi)
        last_psi = psi
        if name == "NME":
            residues.append((name, {"N": nitrogen, "C": alpha}))
            continue
        oxygen = place(np.stack([nitrogen, alpha, carbonyl]), 1.23, 120.5, psi + 180)
        if name == "ACE":
            residues.append((name, {"CH3": alpha, "C": carbonyl, "O": oxygen}))
            continue
        atoms = {"N": nitrogen, "CA": alpha, "C": carbonyl, "O": oxygen}
        chis = 120.0 * generator.integers(0, 3, 5) + 60.0 + 15.0 * generator.standard_normal(5)
        for atom in SIDE_CHAINS[name]:
            torsion = atom.torsion + (chis[atom.chi] if atom.chi else 0.0)
            anchors = np.stack([atoms[anchor] for anchor in atom.anchors])
            atoms[atom.name] = place(anchors, atom.length, atom.angle, torsion)
        if number == len(names) - 1:
            atoms["OXT"] = place(np.stack([nitrogen, alpha, carbonyl]), 1.25, 117.0, psi)
        residues.append((name, atoms))
    return residues


def _phi_psi(name: str, generator: np.random.Generator) -> np.ndarray:
    """(2,) degrees."""
    angles = generator.choice(_BASINS, p=_CHANCES) + 15.0 * generator.standard_normal(2)
    mirrored = generator.random() < 0.5
    if name == "GLY" and mirrored:
        angles = -angles
    if name == "PRO":
        angles[0] = -65.0 + 5.0 * generator.standard_normal()
    return angles


def chain_topology(residues: Residues) -> app.Topology:
    """A chain of these residues with their standard bonds."""
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain()
    for name, atoms in residues:
        residue = topology.addResidue(name, chain)
        for atom in atoms:
            topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
    topology.createStandardBonds()
    return topology


def clashes(topology: app.Topology, positions: np.ndarray) -> bool:
    """Whether two atoms that are four bonds apart or more come too close; positions in angstrom."""
    near = np.eye(len(positions), dtype=int)
    for first, second in topology.bonds():
        near[first.index, second.index] = near[second.index, first.index] = 1
    related = np.linalg.matrix_power(near, 3) > 0
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    return bool((distances[~related] < CLASH).any())
