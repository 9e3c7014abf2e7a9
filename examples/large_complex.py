"""A protein-nucleic complex of any size for 09_large_protein.py: a bundle of alpha helices and single strands of RNA.

Simple geometry with real residue and atom names, without hydrogens: enough for an encoder, not for a simulation.
"""

from __future__ import annotations

import numpy as np
from openmm import app

from openmm_gnn.md.systems.peptides import RESIDUE_NAMES, SIDE_CHAINS, place

Residue = tuple[str, dict[str, np.ndarray]]
PHI, PSI = -63.0, -43.0
SPACING_NM = 2.4
"""From rod to rod."""
BACKBONE = "P O3' 1.61 119.7 C4' C3' -153; O5' P 1.59 104 C3' O3' -71; C5' O5' 1.44 120.9 O3' P -68; \
C4' C5' 1.51 110 P O5' 178; C3' C4' 1.52 115 O5' C5' 54; O3' C3' 1.42 111 C5' C4' 82"
"""Each atom, the atom it is bonded to, length (angstrom), angle (degrees), the two atoms before that, torsion. A strand
of A form: each residue goes on from O3', C3' and C4' of the one before."""
REST = "OP1 P 1.48 108 C5' O5' 52; OP2 P 1.48 108 C5' O5' 172; O4' C4' 1.45 109 O5' C5' -66; \
C1' O4' 1.41 110 C5' C4' 145; C2' C1' 1.53 106 C4' O4' 0; O2' C2' 1.41 110 O4' C1' -95; N1 C1' 1.47 108 C4' O4' -120"
URACIL = (
    "C6 N1 1.38 121 O4' C1' {anti}; C2 N1 1.38 118 O4' C1' {syn}; O2 C2 1.22 123 C1' N1 0; N3 C2 1.37 115 C1' N1 180; \
C4 N3 1.38 127 N1 C2 0; O4 C4 1.23 119 C2 N3 180; C5 C4 1.43 114 C2 N3 0"
)


def helix(length: int, generator: np.random.Generator) -> list[Residue]:
    """An alpha helix of random residues."""
    nitrogen, alpha, carbonyl = np.array([[0.0, 0.0, 0.0], [1.46, 0.0, 0.0], [2.0, 1.42, 0.0]])
    residues: list[Residue] = []
    for name in generator.choice([name for name in RESIDUE_NAMES.values() if name != "PRO"], length):
        if residues:
            nitrogen = place(np.stack([nitrogen, alpha, carbonyl]), 1.33, 116.5, PSI)
            alpha = place(np.stack([alpha, carbonyl, nitrogen]), 1.46, 121.5, 180)
            carbonyl = place(np.stack([carbonyl, nitrogen, alpha]), 1.525, 111.0, PHI)
        oxygen = place(np.stack([nitrogen, alpha, carbonyl]), 1.23, 120.5, PSI + 180)
        atoms = {"N": nitrogen, "CA": alpha, "C": carbonyl, "O": oxygen}
        for atom in SIDE_CHAINS[name]:
            torsion = atom.torsion + (180.0 if atom.chi else 0.0)
            anchors = np.stack([atoms[anchor] for anchor in atom.anchors])
            atoms[atom.name] = place(anchors, atom.length, atom.angle, torsion)
        residues.append((str(name), atoms))
    return residues


def strand(length: int, turn: float) -> list[Residue]:
    """Single-stranded RNA of uracil, its bases turned about the bond to the sugar by so many degrees."""
    base = URACIL.format(anti=20.0 + turn, syn=-160.0 + turn)
    before = {"C4'": np.array([1.5, 0.9, 0.0]), "C3'": np.array([1.42, -0.6, 0.0]), "O3'": np.zeros(3)}
    residues: list[Residue] = []
    for _ in range(length):
        atoms = dict(before)  # until they are placed anew, these are the residue before
        for entry in f"{BACKBONE}; {REST}; {base}".split(";"):
            name, bonded, size, angle, first, second, torsion = entry.split()
            anchors = np.stack([atoms[first], atoms[second], atoms[bonded]])
            atoms[name] = place(anchors, float(size), float(angle), float(torsion))
        before = {name: atoms[name] for name in before}
        residues.append(("U", atoms))
    return residues


def build_complex(
    helices: int, strands: int, helix_length: int, strand_length: int
) -> tuple[app.Topology, np.ndarray, np.ndarray]:
    """Topology, and positions (num_atoms, 3), nm, of two conformations: all bases turned by 50 degrees."""
    generator = np.random.default_rng(1)
    rods = [[helix(helix_length, generator)] * 2 for _ in range(helices)]
    rods += [[strand(strand_length, turn) for turn in (0.0, 50.0)] for _ in range(strands)]
    topology, both = app.Topology(), ([], [])
    columns = int(np.ceil(np.sqrt(len(rods))))
    for number in range(len(rods)):
        rod = rods[number * 7919 % len(rods)]  # strands among the helices; 7919 is a prime
        chain = topology.addChain()
        for name, atoms in rod[0]:
            residue = topology.addResidue(name, chain)
            for atom in atoms:
                topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
        for places, residues in zip(both, rod, strict=True):
            positions = 0.1 * np.concatenate([np.stack(list(atoms.values())) for _, atoms in residues])
            centred = positions - positions.mean(axis=0)
            along_z = np.linalg.svd(centred, full_matrices=False)[2][::-1]
            along_z[0] *= np.sign(np.linalg.det(along_z))  # no mirror
            row, column = divmod(number, columns)
            places.append(centred @ along_z.T + SPACING_NM * np.array([row, column, 0.0]))
    topology.createStandardBonds()
    return topology, np.concatenate(both[0]), np.concatenate(both[1])
