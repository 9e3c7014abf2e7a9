"""Every example runs in its short mode, as a user would start it, and prints the number it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from warm_python import run_python

EXAMPLES = Path(__file__).parents[1] / "examples"
PROMISED = {
    "01_neighbor_pairs": (r"net force over mean force: (\S+)", 0.0, 1e-10),
    "02_argon_under_a_network": (r"relative error of the forces: (\S+) %", 0.0, 0.5),
    "03_train_a_network": (r"relative error of the forces: (\S+) %", 0.0, 50.0),
    "04_accelerate": (r"total energy fluctuates by (\S+) % of that", 0.0, 2.0),
    "05_live_features": (r"features of the turned molecule differ by (\S+)", 0.0, 1e-5),
    "06_vampnet": (r"the first slow variable tells, unseen: ([\d.]+);", 0.9, 1.0),
    "07_spib": (r"where most of their state are: ([\d.]+);", 0.9, 1.0),
    "08_learned_bias": (r"the run covered (\S+) % of the variable's range", 0.5, 130.0),
    "09_large_protein": (r"hidden motion, other frames: (\S+)", 0.9, 1.0),
}
"""For each example the pattern of its number, and the range in which it must be."""


def test_each_example_has_its_number_here() -> None:
    assert sorted(PROMISED) == sorted(path.stem for path in EXAMPLES.glob("[0-9]*.py"))


LONG = ("03_train_a_network", "06_vampnet", "07_spib")
EACH = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in PROMISED]


@pytest.mark.parametrize("name", EACH)
def test_an_example_prints_the_number_it_promises(name: str, tmp_path: Path) -> None:
    done = run_python(EXAMPLES / f"{name}.py", "--short", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pattern, lowest, highest = PROMISED[name]
    number = re.search(pattern, done.stdout)
    assert number is not None, done.stdout
    assert lowest <= float(number.group(1)) <= highest
