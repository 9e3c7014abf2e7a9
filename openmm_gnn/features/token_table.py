"""Tokens: groups of atoms whose features are added up, with a label and a place in space each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.features.covalent_bonds import atom_name

if TYPE_CHECKING:
    import mdtraj
    import numpy as np
    from torch import Tensor


class Anchor(str, Enum):
    """What the coordinates of a token are."""

    CA = "CA"
    """The alpha carbon of an amino acid."""
    C1_PRIME = "C1'"
    """C1' of a nucleotide; unlike P, the first residue of a strand has it, too."""
    PHOSPHORUS = "P"
    """P of a nucleotide whose C1' is not selected."""
    ATOM = "atom"
    """The token is one atom."""
    CENTROID = "centroid"
    """The unweighted mean of the token's atoms."""


class Coordinates(str, Enum):
    """Which coordinates are wanted."""

    ANCHOR = "anchor"
    """Alpha carbon, C1' or P where the residue has one among its selected atoms, else the centroid."""
    CA = "CA"
    """Alpha carbons alone; a token without one is an error."""
    CENTROID = "centroid"
    """Centroids of all tokens."""


@dataclass(frozen=True)
class TokenTable:
    """The tokens of a topology. Indices are those of the full System."""

    labels: tuple[str, ...]
    """Chain, residue and number, "A:ALA5"; of an atom "A:ALA5.CB"; of a given group "group0". Each once."""
    atoms: tuple[tuple[int, ...], ...]
    """Atoms of each token, at least one."""
    anchors: tuple[Anchor, ...]
    anchor_atoms: tuple[int, ...]
    """The atom that is the token's anchor; -1 for a centroid."""
    elements: tuple[str, ...] = ()
    """Symbols of each token's atoms, such as "N C C O"; empty in tables that do not know them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "atoms", tuple(tuple(int(index) for index in token) for token in self.atoms))
        object.__setattr__(self, "anchors", tuple(Anchor(kind) for kind in self.anchors))
        object.__setattr__(self, "anchor_atoms", tuple(int(index) for index in self.anchor_atoms))
        object.__setattr__(self, "elements", tuple(self.elements))
        lengths = {len(getattr(self, field.name)) for field in dataclasses.fields(self)} - {0 if self.labels else -1}
        if len(lengths) != 1 or 0 in lengths or not all(self.atoms):
            raise DataError(
                f"a token table with {sorted(lengths)} labels, atoms or anchors, {self.atoms.count(())} tokens of them "
                "without atoms: give each of at least one token all four"
            )

    @property
    def num_tokens(self) -> int:
        return len(self.labels)

    def rows_among(self, selected: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The table by rows of the selected atoms, as sums over the atoms of tokens need it.

        Returns:
            (entries,) the token and (entries,) the row of each atom of each token; (num_tokens, 1) number of its atoms;
            (num_tokens, 1) whether it is at its centroid; (num_tokens,) row of its anchor, 0 for a centroid.
        """
        import torch

        row = {int(index): number for number, index in enumerate(selected)}
        entries = [(token, row[index]) for token, members in enumerate(self.atoms) for index in members]
        token_of, row_of = torch.tensor(entries).T.contiguous()
        sizes = torch.tensor([[len(members)] for members in self.atoms])
        is_centroid = torch.tensor([[kind is Anchor.CENTROID] for kind in self.anchors])
        return token_of, row_of, sizes, is_centroid, torch.tensor([row.get(index, 0) for index in self.anchor_atoms])

    def moved_to(self, topology: mdtraj.Topology, selected: np.ndarray) -> TokenTable:
        """The same tokens in another topology, whose selected atoms are those of this table's, in the same order.

        Raises:
            TopologyError: if the tokens do not hold every selected atom, and so do not say where the atoms are now.
        """
        own = sorted({index for token in self.atoms for index in token})
        place = dict(zip(own, selected.tolist(), strict=False))
        if len(own) != len(selected):  # groups of some of the atoms
            place = {index: index for index in own}
            now = [
                " ".join(topology.atom(i).element.symbol for i in token)
                for token in self.atoms
                if max(token) < topology.n_atoms
            ]
            if not set(own) <= set(selected.tolist()) or (self.elements and tuple(now) != self.elements):
                raise TopologyError(
                    "the tokens are groups of some of the selected atoms, which have other indices in this topology: "
                    "give a topology that begins with the same atoms"
                )
        return dataclasses.replace(
            self,
            atoms=tuple(tuple(place[index] for index in token) for token in self.atoms),
            anchor_atoms=tuple(place.get(index, -1) for index in self.anchor_atoms),
        )

    def to_json(self) -> dict[str, Any]:
        """The table as plain lists, ready for `json.dumps`."""
        return {
            "labels": list(self.labels),
            "atoms": [list(token) for token in self.atoms],
            "anchors": [kind.value for kind in self.anchors],
            "anchor_atoms": list(self.anchor_atoms),
            **({"elements": list(self.elements)} if self.elements else {}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TokenTable:
        """The table of a `to_json`.

        Raises:
            DataError: if something is missing or contradicts itself.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "elements"]
        if missing := [name for name in names if name not in document]:
            raise DataError(f"a token table without {missing}: expected {names}")
        try:
            return cls(**{name: document[name] for name in names}, elements=tuple(document.get("elements", ())))
        except (TypeError, ValueError) as error:
            raise DataError(f"a token table that cannot be read: {error}") from error


def residue_tokens(
    topology: mdtraj.Topology, atoms: np.ndarray, coordinates: Coordinates = Coordinates.ANCHOR
) -> TokenTable:
    """One token per residue that has a selected atom: amino acids, caps, nucleotides, ligands and ions alike.

    Raises:
        TopologyError: if alpha carbons are wanted, naming a residue without one among its selected atoms.
    """
    members: dict[int, list[int]] = {}
    for index in atoms:
        members.setdefault(topology.atom(int(index)).residue.index, []).append(int(index))
    labels = [_residue_label(topology.residue(residue)) for residue in members]
    return _table(topology, labels, list(members.values()), coordinates)


def atom_tokens(
    topology: mdtraj.Topology, atoms: np.ndarray, coordinates: Coordinates = Coordinates.ANCHOR
) -> TokenTable:
    """One token per selected atom."""
    chosen = [topology.atom(int(index)) for index in atoms]
    labels = [f"{_residue_label(atom.residue)}.{atom.name}" for atom in chosen]
    return _table(topology, labels, [[atom.index] for atom in chosen], coordinates)


def group_tokens(
    topology: mdtraj.Topology,
    atoms: np.ndarray,
    groups: Sequence[Sequence[int]],
    coordinates: Coordinates = Coordinates.ANCHOR,
) -> TokenTable:
    """One token per given group of selected atoms; groups may overlap, and need not hold every selected atom.

    Raises:
        SpecError: if there is no group, or one is empty, names an atom twice, or one that is not selected.
    """
    selected = {int(index) for index in atoms}
    if len(groups) == 0:
        raise SpecError("tokens is an empty list: give at least one group of atom indices")
    tokens = []
    for number, group in enumerate(groups):
        members = [int(index) for index in group]
        if not members or len(set(members)) < len(members):
            raise SpecError(f"group {number} of the tokens is {members}: give each of at least one atom once")
        for index in members:
            if not 0 <= index < topology.n_atoms:
                raise SpecError(
                    f"group {number} of the tokens has the atom {index}: the topology has {topology.n_atoms}, "
                    "counted from 0"
                )
            if index not in selected:
                raise SpecError(
                    f"group {number} of the tokens has the atom {atom_name(topology.atom(index))}, which is not "
                    "selected: widen the selection or leave the atom out (by default hydrogens are not selected)"
                )
        tokens.append(members)
    return _table(topology, [f"group{number}" for number in range(len(groups))], tokens, coordinates)


def _table(
    topology: mdtraj.Topology, labels: list[str], tokens: list[list[int]], coordinates: Coordinates
) -> TokenTable:
    anchors = [(Anchor.CENTROID, -1) for _ in tokens]
    if coordinates is not Coordinates.CENTROID:
        anchors = [_anchor(topology, token) for token in tokens]
    if coordinates is Coordinates.CA:
        without = [label for label, (kind, _) in zip(labels, anchors, strict=True) if kind is not Anchor.CA]
        if without:
            raise TopologyError(
                f"{len(without)} of {len(tokens)} tokens have no alpha carbon among their selected atoms, the first "
                f'is {without[0]}: select without them, or give coordinates="anchor" for centroids in their place'
            )
    kinds, places = zip(*anchors, strict=True) if anchors else ((), ())
    elements = tuple(" ".join(topology.atom(index).element.symbol for index in token) for token in tokens)
    return TokenTable(_each_once(labels), tuple(map(tuple, tokens)), kinds, places, elements)


def _anchor(topology: mdtraj.Topology, token: list[int]) -> tuple[Anchor, int]:
    """The anchor of a token, by the names and elements of its residue's atoms."""
    members = [topology.atom(index) for index in token]
    residues = {atom.residue.index for atom in members}
    if len(residues) == 1:
        names = {atom.name for atom in members[0].residue.atoms}
        alpha, sugar = {"N", "C"} <= names, {"C4'", "O4'"} <= names or {"C4*", "O4*"} <= names
        by_name = {atom.name: atom for atom in members}
        # The name alone says little: a calcium ion is called CA too, and a ligand may have any names.
        carbon = by_name.get("CA")
        if carbon is not None and carbon.element.number == 6 and (alpha or carbon.residue.is_protein):
            return Anchor.CA, carbon.index
        for name, kind, number in (
            ("C1'", Anchor.C1_PRIME, 6),
            ("C1*", Anchor.C1_PRIME, 6),
            ("P", Anchor.PHOSPHORUS, 15),
        ):
            atom = by_name.get(name)
            if atom is not None and atom.element.number == number and (sugar or atom.residue.is_nucleic):
                return kind, atom.index
    return (Anchor.ATOM, token[0]) if len(token) == 1 else (Anchor.CENTROID, -1)


def _residue_label(residue: Any) -> str:
    chain = (getattr(residue.chain, "chain_id", None) or "").strip() or str(residue.chain.index)
    return f"{chain}:{residue.name}{residue.resSeq}"


def _each_once(labels: list[str]) -> tuple[str, ...]:
    """Labels that come again (insertion codes, numbers that wrap, chains of one name) get "#2", "#3", ..."""
    seen: Counter[str] = Counter()
    unique = []
    for label in labels:
        seen[label] += 1
        unique.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return tuple(unique)
