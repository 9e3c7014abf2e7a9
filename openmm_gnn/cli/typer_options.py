"""What several commands read from their options in the same way."""

from __future__ import annotations

import typer


def parse_seeds(text: str) -> list[int]:
    """Whole numbers from text such as "1-8", "9" or "1,3,5-7", each once, in order.

    Raises:
        typer.BadParameter: if the text is anything else.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or (last and int(last) < int(first)):
            raise typer.BadParameter(f"{text!r} is no list of seeds: give numbers and ranges, such as 1-8 or 1,3,5-7")
        seeds += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(seeds))


def parse_numbers(text: str, option: str) -> list[float]:
    """Numbers from text such as "0.1,0.2".

    Raises:
        typer.BadParameter: if the text is anything else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers: write it such as 0.1,0.2", param_hint=option
        ) from error
