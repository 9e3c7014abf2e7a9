"""PDB files whose lines do not say all: elements that the columns lack, and atoms of one residue with equal names.

OpenMM's parser guesses the element from the first letter, and drops all atoms of a name but the first; so the lines are
completed before it reads them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from openmm_gnn.base.elements import SITE, WATERS, element_of, is_symbol

_ATOM_LINES = ("ATOM  ", "HETATM")
_NO_ELEMENT = "EP"
"""What OpenMM's parser takes for no element."""
_NAMES = slice(12, 16)
_ELEMENT = slice(76, 78)


def completed(text: str, given: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text of a PDB file with an element in each line of an atom, and names that are unique in their residue.

    An element that the names do not decide is left out; the topology then has none for that atom.

    Args:
        given: symbols by atom name, or by residue and atom name, of `parsed_elements`.
    Returns:
        The text, and a sentence for what was taken from names, or renamed.
    """
    lines = text.splitlines()
    groups: list[list[int]] = []
    place = residue = ""
    models = 0
    for number, line in enumerate(lines):
        if line.startswith("MODEL"):  # some programs leave the number out, or write it into other columns
            models = models % 9999 + 1
            lines[number] = f"MODEL     {models:4d}"
        if not line.startswith(_ATOM_LINES):
            place = "" if line.startswith(("TER", "MODEL", "ENDMDL")) else place
            continue
        # Another name at one place is another residue, or an alternate location of a point mutation.
        if line[21:27] != place or (line[16] == " " and line[17:21] != residue):
            groups.append([])
            place, residue = line[21:27], line[17:21]
        groups[-1].append(number)
    columns_tell = _columns_tell([lines[number] for group in groups for number in group])
    guessed: Counter[str] = Counter()
    renamed = 0
    starts = [number for number, line in enumerate(lines) if line.startswith("MODEL")]
    counted = range(starts[1] if len(starts) > 1 else len(lines))  # lines of the first model: the others say the same
    for group in groups:
        names = [lines[number][_NAMES].strip() for number in group]
        taken = set(names)
        one_oxygen = sum(name[:1] == "O" for name in names) == 1  # in waters; more of them under one number are many
        seen: set[tuple[str, str]] = set()
        for number, name in zip(group, names, strict=True):
            line = lines[number].ljust(80)
            symbol, residue = line[_ELEMENT].strip(), line[17:21].strip()
            if not is_symbol(symbol) and symbol.upper() not in (_NO_ELEMENT, SITE):
                two = line[12].isalpha() if columns_tell and len(name) < 4 else None
                chosen = given.get(f"{residue}:{name}".upper()) or given.get(name.upper())
                if chosen is None and (chosen := element_of(residue, name, names, two)) not in (None, SITE):
                    guessed[str(chosen)] += number in counted
                symbol = _NO_ELEMENT if chosen in (None, SITE) else str(chosen)
            if (name, line[16]) in seen and (residue not in WATERS or one_oxygen) and "*" not in line[22:26]:
                name = next(new for k in range(2, 10**4) if (new := f"{symbol}{k}") not in taken)
                taken.add(name)
                renamed += number in counted
            seen.add((name, line[16]))
            column = name.ljust(4) if len(name) > 3 or line[12] != " " else f" {name:<3}"
            lines[number] = f"{line[:12]}{column}{line[16:76]}{symbol:>2}{line[78:]}"
    said = []
    if len(boxes := {line[6:54] for line in lines if line.startswith("CRYST1")}) > 1:
        said.append(f"its models have {len(boxes)} different boxes, of which the last one is taken for all")
    if guessed.total():
        kinds = ", ".join(f"{count} {symbol}" for symbol, count in guessed.items())
        said.append(f"{guessed.total()} atoms have no element; by the names of residue and atom they are {kinds}")
    if renamed:
        said.append(f"{renamed} atoms have the name of another in their residue and were given names of their own")
    return "\n".join(lines) + "\n", said


def _columns_tell(lines: list[str]) -> bool:
    """Whether names stand where the format wants them, elements of one letter in the second column."""
    second = first_wrong = False
    for line in lines:
        name = line[_NAMES].strip()
        if len(name) < 4 and not name[:1].isdigit():
            second |= line[12] == " "
            first_wrong |= line[12] != " " and bool(re.fullmatch(r"N|CA|C|O|CB|P|C1'|O4'", name))
    return second and not first_wrong
