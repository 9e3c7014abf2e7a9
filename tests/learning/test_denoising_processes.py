"""Two processes that share every step learn what one learns, also when they are killed on the way."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from command_lines import invoke
from warm_python import WarmProcess

from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.networks.weights import load_encoder

COMMAND = (
    *("pretrain", "data", "--hold-out", "4", "--quiet", "--threads", "1"),
    *("--layers", "2", "--width", "16", "--heads", "4", "--radial", "16", "--cutoff", "0.4"),
    *("--noise", "0.2,0.1", "--batch-size", "5", "--steps", "40", "--validate-every", "4", "--warmup", "10"),
    *("--learning-rate", "1e-2", "--average-decay", "0.9"),
)
"""An odd number of molecules: the two get unequal numbers of them, and of atoms."""


def rows_of(directory: Path) -> list[list[float]]:
    with open(directory / "log.csv") as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


ALONE = "import os, runpy; os.setsid(); runpy.run_module('openmm_gnn', run_name='__main__', alter_sys=True)"
"""The command line in a session of its own."""


def started(where: Path, out: str, *options: str) -> WarmProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return WarmProcess(["-c", ALONE, *COMMAND, "--out", out, *options], [0, 1, 2], where, environment)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_though_they_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PeptideSettings(longest=3, temperatures=(300.0,), frames=4, interval_ps=0.1)
    make_conformations(tmp_path / "data", 8, settings, processes=1, progress=False)
    two = ("--devices", "2")
    killed, log, deadline = started(tmp_path, "two", *two), tmp_path / "two" / "log.csv", time.monotonic() + 120
    while (alive := Path(f"/proc/{killed.pid}").exists()) and time.monotonic() < deadline:
        if log.is_file() and len(log.read_text().splitlines()) > 3:
            break
        time.sleep(0.005)
    assert alive
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 0 < len(rows_of(tmp_path / "two")) < 10
    assert started(tmp_path, "two", *two).wait() == 0
    monkeypatch.chdir(tmp_path)
    alone = invoke([*COMMAND, "--out", "one"])
    assert alone.exit_code == 0, alone.output

    one, other = torch.tensor(rows_of(tmp_path / "one")), torch.tensor(rows_of(tmp_path / "two"))
    assert one[:, 0].tolist() == other[:, 0].tolist() == list(range(4, 44, 4))
    # Sums over atoms in another order, float32, over 40 steps; six digits are written.
    assert torch.allclose(one, other, rtol=1e-4, atol=0)
    assert one[-1, 2] < 0.95 * one[0, 2]
    first, second = (load_encoder(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in first.named_parameters():
        assert torch.allclose(value, second.state_dict()[name], rtol=0, atol=1e-4), name
    recipes = [encoder.spec.metadata["recipe"] for encoder in (first, second)]
    assert recipes[0] == recipes[1]
