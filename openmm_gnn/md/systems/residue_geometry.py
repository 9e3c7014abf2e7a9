"""Bond lengths, angles and torsions of the 20 amino acids, from which peptides are built atom by atom.

Values rounded after Engh and Huber, Acta Cryst. A 47, 392 (1991); the way of placing an atom: Parsons et al.,
J. Comput. Chem. 26, 1063 (2005), "natural extension reference frame". They need not be better than 0.05 angstrom and a
few degrees: what is built is minimised in a force field.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

RESIDUE_NAMES = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        [
            "ALA",
            "CYS",
            "ASP",
            "GLU",
            "PHE",
            "GLY",
            "HIS",
            "ILE",
            "LYS",
            "LEU",
            "MET",
            "ASN",
            "PRO",
            "GLN",
            "ARG",
            "SER",
            "THR",
            "VAL",
            "TRP",
            "TYR",
        ],
        strict=True,
    )
)
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
