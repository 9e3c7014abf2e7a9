"""A scaling study: every combination is trained once, counted, kept and gone on with."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import scaling
import torch
from scaling_report import fits_of, write_report
from scaling_runs import (
    ScalingCell,
    ScalingGrid,
    ScalingRun,
    grid_from_json,
    grid_to_json,
    num_parameters,
    operations_per_atom,
    run_scaling,
)

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.learning.settings import DenoisingSettings
from openmm_gnn.networks.encoders.encoder import Encoder

GRID = ScalingGrid(
    layers=(1, 2),
    widths=(8, 16),
    hold_out=4,
    training=DenoisingSettings(
        num_steps=20, batch_size=2, learning_rate=2e-2, warmup_steps=2, average_decay=0.9, validate_every=10
    ),
)
ELEMENTS = (6, 7, 8, 16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Conformations:
    settings = PeptideSettings(longest=2, temperatures=(300.0,), frames=2, interval_ps=0.1)
    data = make_conformations(tmp_path_factory.mktemp("data"), 8, settings, processes=1, progress=False)
    assert isinstance(data, Conformations)
    return data


@pytest.fixture(scope="module")
def study(data: Conformations, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ScalingRun]]:
    out = tmp_path_factory.mktemp("study")
    small = dataclasses.replace(GRID, layers=(1,))
    run_scaling([data.path], out, small, processes=1, progress=False)
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/model.safetensors")}
    larger = dataclasses.replace(GRID, molecules=(0, 4))
    runs = run_scaling([data.path], out, larger, processes=2, progress=False)
    assert len(before) == 2
    assert before == {path: path.stat().st_mtime_ns for path in before}  # a larger grid trains what is new alone
    return out, runs


@pytest.mark.slow
def test_every_combination_is_trained_and_counted(study: tuple[Path, list[ScalingRun]]) -> None:
    _, runs = study
    assert [run.cell for run in runs] == dataclasses.replace(GRID, molecules=(0, 4)).cells
    assert len({run.cell.name for run in runs}) == 8
    for run in runs:
        assert run.steps == (10, 20)
        assert 0 < run.error < 2
        assert run.frames == (8 if run.cell.molecules else 12)
        encoder = Encoder(GRID.spec(run.cell, ELEMENTS))
        table = encoder.network.embedding.weight.numel()
        assert run.parameters == sum(weight.numel() for weight in encoder.parameters()) - table
        assert run.parameters == num_parameters(encoder.spec)


def test_operations_grow_with_the_network_as_they_must(data: Conformations) -> None:
    """The products of matrices of a layer: quadratic in the width for atoms, linear for the edges' filters."""
    counts = {
        (layers, width): operations_per_atom(
            GRID.spec(ScalingCell(layers, width, 5.0, 0, 0), ELEMENTS), data.molecules, False
        )
        for layers, width in ((1, 32), (2, 32), (4, 32), (1, 64))
    }
    per_layer = (counts[4, 32] - counts[2, 32]) / 2
    assert counts[2, 32] - counts[1, 32] == pytest.approx(per_layer, rel=0.1)  # the first layer has no vectors yet
    assert 2 < counts[1, 64] / counts[1, 32] < 4
    # One atom in one layer, by hand: 5 H^2 of node, 9 H^2 of mixing, 3 H^2 of out, 4 H K of each of its edges' filters;
    # a product counts twice, and the backward pass twice the forward one.
    edges = (per_layer / 6 - 17 * 32**2) / (4 * 32 * GRID.num_radial)
    assert 5 < edges < 32


@pytest.mark.slow
def test_the_report_has_numbers_and_a_picture(study: tuple[Path, list[ScalingRun]]) -> None:
    out, runs = study
    fits = write_report(runs, out)
    document = json.loads((out / "scaling.json").read_text())
    assert len(document["runs"]) == 8
    assert document["fits"]["parameters"]["exponent"] == pytest.approx(fits["parameters"].exponent)
    with open(out / "scaling.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["error"]) for row in rows] == pytest.approx([run.error for run in runs])
    assert (out / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert "frames" not in fits_of(runs)  # two sizes of the data make no line


@pytest.mark.slow
def test_another_study_is_not_mixed_in(study: tuple[Path, list[ScalingRun]], data: Conformations) -> None:
    out, _ = study
    other = dataclasses.replace(GRID, training=dataclasses.replace(GRID.training, batch_size=3))
    with pytest.raises(DataError, match="training"):
        run_scaling([data.path], out, other, progress=False)
    with pytest.raises(SpecError, match="training set has 6"):
        run_scaling([data.path], out, dataclasses.replace(GRID, molecules=(7,)), progress=False)


def test_a_grid_survives_its_file() -> None:
    assert grid_from_json(json.loads(json.dumps(grid_to_json(GRID)))) == GRID


@pytest.mark.parametrize("wrong", [{"layers": ()}, {"widths": (16, 16)}, {"molecules": (-1,)}])
def test_a_grid_without_sense_is_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        ScalingGrid(**wrong)


@pytest.mark.slow
def test_the_command_goes_on_with_a_study(study: tuple[Path, list[ScalingRun]], data: Conformations) -> None:
    out, _ = study
    command = [str(data.path), "--out", str(out), "--layers", "1", "--width", "8", "--hold-out", "4", "--steps", "20"]
    command += ["--batch-size", "2", "--learning-rate", "0.02", "--validate-every", "10", "--no-progress"]
    with pytest.raises(DataError, match="warmup_steps"):  # the command has another warm-up than the study
        scaling.main(command)
    torch.set_num_threads(1)


@pytest.mark.slow
def test_the_command_says_what_too_few_trainings_cannot_tell(
    data: Conformations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(data.path), "--out", str(tmp_path), "--layers", "1", "--width", "8", "--hold-out", "4"]
    scaling.main([*command, "--steps", "4", "--validate-every", "2", "--batch-size", "2", "--no-progress"])
    lines = capsys.readouterr().out.splitlines()
    said = [line.split(":")[0] for line in lines if "too few trainings" in line]
    assert said == ["parameters", "frames", "operations"]


def test_an_option_that_is_not_given_is_the_grids() -> None:
    given = scaling.options().parse_args(["peptides", "--out", "study"])
    assert (given.layers, given.learning_rate) == (ScalingGrid().layers, ScalingGrid().training.learning_rate)
    assert scaling.whole_numbers("0,3-5,4") == (0, 3, 4, 5)
