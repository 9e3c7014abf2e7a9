"""The element of an atom whose file does not name it, from the names of its residue and of itself; and covalent radii.

A name alone says little: CA is an alpha carbon or calcium, HG a hydrogen or mercury. So the residue decides: ions are
alone in theirs, polymers have no metals, haem has its own names. What names leave open stays unknown and is refused by
`features.topologies`, which also takes the user's word for it.

Radii: Cordero et al., Dalton Trans. 2832 (2008), DOI 10.1039/b801115j.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from openmm_gnn.base.errors import SpecError

SITE = "VS"
"""Symbol of a virtual site, Drude particle or dummy: no atom."""

_AMINO_ACID_NAMES = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL ASH GLH LYN HID HIE HIP HSD HSE "
    "HSP CYX CYM MSE SEC ACE NME NMA NH2"
)
_NUCLEOTIDE_NAMES = "A C G U T DA DC DG DT ADE CYT GUA URA THY"
_WATER_NAMES = "HOH WAT SOL H2O TIP TIP2 TIP3 TIP3P TIP4 TIP4P TIP5 T3P T4P SPC SPCE OPC OP3 DOD"
_POLYMERS = frozenset((_AMINO_ACID_NAMES + " " + _NUCLEOTIDE_NAMES).split())
WATERS = frozenset(_WATER_NAMES.split())
_IONS = {
    **{"SOD": "Na", "POT": "K", "CLA": "Cl", "CIO": "Cs", "CAL": "Ca", "CES": "Cs", "LIT": "Li", "RUB": "Rb"},
    **{"BAR": "Ba", "CAD": "Cd", "IOD": "I", "C0": "Ca", "SR": "Sr", "MG": "Mg", "ZN": "Zn", "MN": "Mn", "FE": "Fe"},
    **{"NA": "Na", "K": "K", "CL": "Cl", "LI": "Li", "RB": "Rb", "CS": "Cs", "CA": "Ca", "BA": "Ba", "CU": "Cu"},
    **{"CO": "Co", "NI": "Ni", "CD": "Cd", "HG": "Hg", "AG": "Ag", "PB": "Pb", "AL": "Al", "F": "F", "BR": "Br"},
    **{"I": "I", "PT": "Pt", "TL": "Tl", "GD": "Gd", "EU": "Eu", "TB": "Tb", "YB": "Yb", "V": "V", "CR": "Cr"},
    **{"AR": "Ar", "KR": "Kr", "XE": "Xe", "HE": "He", "NE": "Ne"},
}
"""By the name of the residue or of the atom, without charges and digits, where the residue has no other atom."""
_IONS_BY_BOTH = ("Ca", "Cd", "Hg", "Co", "Ni", "Pb", "Cr", "F", "I", "K", "V", "He", "Ne", "Cs")
"""Names of atoms that are no ions, too."""
_HAEM_NAMES = "HEM HEME HEC HEA HEB HAS HDD HDM HIF FDE COH ZNH MNH"
_HAEMS = frozenset(_HAEM_NAMES.split())
_HAEM_NITROGENS = ("NA", "NB", "NC", "ND")
_COBALAMINS = ("B12", "CNC", "COB", "COY", "CBY")
_TWO_LETTER_NAMES = "FE SE SI PT CU NI ZN MN MG MO RU RH RE LI AL AG AU AS GA GD GE TI TL TB RB ZR XE KR EU ER YB LA LU"
_TWO_LETTERS = frozenset(_TWO_LETTER_NAMES.split())
"""Names that are no others in any residue of several atoms."""
_EITHER_NAMES = "CO CD CR CS HG IR OS PB PD SN SB BI BA CA"
_EITHER = frozenset(_EITHER_NAMES.split())
"""Metals, or an organic atom with a letter behind it: undecided where the residue is not known."""
_ORGANIC = "HCNOSPF"


def is_site_name(residue: str, name: str, others: Collection[str]) -> bool:
    """Whether an atom is by its name a virtual site, lone pair, Drude particle or dummy, and no atom.

    Args:
        others: names of all atoms of its residue.
    """
    if re.fullmatch(r"(LP|EP|VS|XP|DUM)[A-Z]?\d*\w?|XX?|EPW|M\d?|MW", name.upper()):
        return True
    if residue.upper() in WATERS and re.fullmatch(r"M|MW\d?|OM|IW|M\d+|L\d?|LP\d?|DO\w*|Q\w*", name.upper()):
        return True
    return name[:1] == "D" and name[1:] in others


def is_site(atom: Any) -> bool:
    """Whether an atom of a topology, of OpenMM's or mdtraj's, is by its name no atom."""
    residue = atom.residue
    every = residue.atoms() if callable(residue.atoms) else residue.atoms
    return is_site_name(residue.name, atom.name, {one.name for one in every})


def element_of(residue: str, name: str, others: Collection[str], two_letters: bool | None = None) -> str | None:
    """The symbol of an atom's element, `SITE` for what is no atom, None where the names do not decide.

    Args:
        others: names of all atoms of its residue.
        two_letters: whether the columns of its name in a PDB line say that the element has two letters; None where
            there are no columns, or they are not to be trusted.
    """
    if is_site_name(residue, name, others):
        return SITE
    residue, name = residue.upper(), name.upper()
    match = re.match(r"\d*([A-Z]+)(.*)", name)
    if match is None:
        return None
    letters, rest = match[1], match[2]
    polymer = residue in _POLYMERS or residue in WATERS
    if len(others) == 1 and not polymer and (ion := _ion(residue, name)) is not None:
        return ion
    if residue in _HAEMS and name in _HAEM_NITROGENS:
        return "N"
    if residue in _COBALAMINS and name == "CO":
        return "Co"
    if letters == "SE":
        return "Se"
    if polymer or {"N", "CA", "C"} <= set(others) or {"C1'", "O4'"} <= set(others):
        # A bead of a coarse model, such as SC1 or BB, is none of these.
        plausible = letters[0] in "HCNOD" or name in ("S", "SG", "SD") or (letters[0] == "P" and len(letters) <= 2)
        if plausible:
            return letters[0]
        if residue in _POLYMERS:
            return None
    if letters[:2] in ("CL", "BR"):
        return letters[:2].capitalize()
    if letters in _TWO_LETTERS:
        return letters.capitalize()
    if letters in _EITHER and not rest:
        return None if two_letters is None else letters.capitalize() if two_letters else letters[0]
    if letters[0] in _ORGANIC or letters in ("B", "I"):
        return letters[0]
    return None


def _ion(residue: str, name: str) -> str | None:
    """The element of a residue of one atom by both names, or by one that is never that of an alpha carbon."""
    of_residue, of_name = (_IONS.get(text) or _IONS.get(text.rstrip("0123456789+-")) for text in (residue, name))
    if of_name is not None and (of_name == of_residue or of_name not in _IONS_BY_BOTH):
        return of_name
    return of_residue if of_name is None else None


def named_element(residue: str, name: str, others: Collection[str]) -> str | None:
    """The symbol of an ion or of an atom of haem, whose names leave no doubt; None for all else."""
    residue, name = residue.upper(), name.upper()
    if residue in _HAEMS and (name == "FE" or name in _HAEM_NITROGENS):
        return element_of(residue, name, others)
    if len(others) == 1 and _IONS.get(residue.rstrip("0123456789+-")) is not None:
        return _ion(residue, name)
    return None


def is_symbol(text: str) -> bool:
    """Whether a text is the symbol of an element, in letters of either size."""
    from openmm import app

    try:
        app.Element.getBySymbol(text)
    except KeyError:
        return False
    return True


def parsed_elements(elements: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """What a user says about elements: symbols by atom name, or by residue and atom name as in "HEM:FE".

    Args:
        elements: a mapping, or texts such as "FE=Fe" and "HEM:NA=N"; `SITE` for what is no atom.
    Raises:
        SpecError: if a text has no "=", or a symbol is that of no element.
    """
    pairs = elements.items() if isinstance(elements, Mapping) else (text.partition("=")[::2] for text in elements)
    given = {}
    for name, symbol in pairs:
        known = symbol.capitalize()
        if symbol.upper() == SITE:
            known = SITE
        elif not is_symbol(symbol):
            raise SpecError(
                f"elements has {name}={symbol}, which names no element: write such as FE=Fe, HEM:NA=N, or M={SITE} for "
                "a virtual site"
            )
        given[name.upper()] = known
    return given


_RADII_PM = (
    "31 28 128 96 84 76 71 66 57 58 166 141 121 111 107 105 102 106 203 176 170 160 153 139 139 132 126 124 132 "
    "122 122 120 119 120 120 116 220 195 190 175 164 154 147 146 142 139 145 144 142 139 139 138 139 140 244 215 "
    "207 204 203 201 199 198 198 196 194 192 192 189 190 187 187 175 170 162 151 144 141 136 136 132 145 146 148 "
    "140 150 150 260 221 215 206 200 196 190 187 180 169"
)
COVALENT_RADII_NM = (0.0, *(int(radius) / 1000 for radius in _RADII_PM.split()))
"""By atomic number; 0 for none."""
