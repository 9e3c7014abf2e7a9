"""A scan of step sizes on a small flexible water: a step that works, one that cannot, and a second call that waits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from command_lines import invoke
from openmm import app
from small_water import water_on_a_lattice
from untrained_networks import untrained

from openmm_gnn.analysis.step_scan import ScanRow, ScanSettings, Verdict, candidates, judge, recommended, scan_steps
from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.statistics import Estimate
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.md.systems.systems import SimulationSystem, save_system
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import save_network
from openmm_gnn.runs.directory import RunDirectory


def droplet() -> SimulationSystem:
    """8 molecules of flexible TIP3P in vacuum."""
    topology = water_topology(8, 1.0)
    topology.setPeriodicBoxVectors(None)
    system = app.ForceField("tip3p.xml").createSystem(topology, nonbondedMethod=app.NoCutoff, rigidWater=False)
    return SimulationSystem("droplet", system, topology, water_on_a_lattice(2, 0.31), time_step_ps=0.0005)


def weak_network() -> GAMD:
    return untrained((8, 1), 0.35, num_layers=0, force_scale=1e-3)


def row(hydrogen: float, error: float = 1.0, potential: float = -100.0, name: str = "outer") -> ScanRow:
    temperatures = {"O": Estimate(300.0, 1.0), "H": Estimate(hydrogen, error)}
    return ScanRow(name, 6.0, 3, 4, 300.0, 1.0, temperatures, Estimate(potential, 1.0), Verdict.STABLE)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (row(301.0), Verdict.STABLE),
        (row(302.9, error=0.1), Verdict.STABLE),  # significant, and less than one per cent
        (row(310.0, error=4.0), Verdict.STABLE),  # much, and within three errors
        (row(310.0), Verdict.HEATS),
        (row(290.0), Verdict.COOLS),
        (row(601.0), Verdict.BLEW_UP),
        (row(301.0, potential=-90.0), Verdict.ENERGY_OFF),
    ],
)
def test_verdicts(measured: ScanRow, verdict: Verdict) -> None:
    assert judge(measured, row(300.0, name="reference")) is verdict


def test_a_step_beside_a_resonance_is_not_recommended() -> None:
    long, middle, few, hot = (
        dataclasses.replace(row(300.0, name=name), time_step_fs=step, inner_steps=inner, verdict=verdict)
        for name, step, inner, verdict in (
            ("long", 8.0, 3, Verdict.STABLE),
            ("middle", 6.0, 3, Verdict.STABLE),
            ("few", 6.0, 2, Verdict.STABLE),
            ("hot", 10.0, 3, Verdict.HEATS),
        )
    )
    assert candidates([hot, middle, long, few]) == [long, few, middle]
    assert recommended([hot, middle, long, few]) == long
    narrow = dataclasses.replace(hot, name="narrow", time_step_fs=7.6, neighbor_of="long")
    quiet = dataclasses.replace(few, name="quiet", time_step_fs=5.7, neighbor_of="few")
    assert recommended([hot, middle, long, few, narrow, quiet]) == few
    assert recommended([hot]) is None
    reference = dataclasses.replace(row(300.0, name="reference"), inner_steps=0)
    above, below = (
        dataclasses.replace(quiet, verdict=Verdict.ENERGY_OFF, potential=Estimate(energy, 1.0))
        for energy in (-90, -110)
    )
    assert recommended([reference, few, below]) == few and recommended([reference, few, above]) is None


def test_isokinetic_runs_are_judged_by_their_energy() -> None:
    without = dataclasses.replace(row(300.0), temperatures={})
    assert judge(without, row(300.0)) is Verdict.STABLE
    assert judge(dataclasses.replace(without, potential=Estimate(-90.0, 1.0)), row(300.0)) is Verdict.ENERGY_OFF
    settings = ScanSettings((10.0,), thermostat=Thermostat.ISOKINETIC)
    (_, reference), (_, accelerated) = settings.runs(droplet())
    assert (reference.thermostat, accelerated.thermostat) == (Thermostat.LANGEVIN, Thermostat.ISOKINETIC)
    assert accelerated.friction_per_ps == 10.0 and reference.friction_per_ps == 1.0


@pytest.mark.slow
def test_a_scan_tells_a_step_that_works_from_one_that_cannot(tmp_path: Path) -> None:
    save_system(tmp_path / "droplet", droplet())
    bundle = save_network(weak_network(), tmp_path / "net.safetensors")
    command = ["scan-steps", str(tmp_path / "droplet"), "--model", str(bundle), "--out", str(tmp_path / "scan")]
    command += ["--outer", "1,40", "--inner", "2", "--picoseconds", "0.8", "--equilibration", "0.4"]
    command += ["--friction", "20", "--platform", "Reference", "--bonded-substeps", "2"]
    command += ["--neighbors", "-5"]
    done = invoke(command, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "scan" / "scan.json").read_text())
    # A droplet takes more than 1 ps to relax, so after 0.4 ps its energy may differ from the reference's, and its
    # temperature too: a step that works may have any verdict but "blew up". Neighbours are run of a step that is fine.
    fine = rows[1]["verdict"] == "stable"
    names = ["reference", "outer-1fs-inner-2", "outer-40fs-inner-2", *(["outer-0.95fs-inner-2"] if fine else [])]
    assert [entry["name"] for entry in rows] == names
    assert [entry["inner_steps"] for entry in rows] == [0, 2, 2, 2][: len(rows)]
    assert [entry["neighbor_of"] for entry in rows] == ["", "", "", "outer-1fs-inner-2"][: len(rows)]
    assert [entry["name"] for entry in rows if entry["verdict"] == "blew up"] == ["outer-40fs-inner-2"]
    assert (tmp_path / "scan" / "scan.png").stat().st_size > 10_000
    assert "40 / 20 / 10" in done.stdout
    assert ("--time-step 1 --inner-steps 2 --friction 20" in done.stdout) is any(
        entry["verdict"] == "stable" for entry in rows[1:]
    )
    assert max(map(len, done.stdout.split("Figure")[0].splitlines())) <= 80
    for entry in rows[:2]:
        log = RunDirectory(tmp_path / "scan" / entry["name"]).read_log()
        assert entry["potential"]["value"] == pytest.approx(log["potential_kj_mol"].mean())
        assert entry["temperatures"]["H"]["value"] == pytest.approx(log["temperature_H_K"].mean())
        assert log["time_ps"][-1] == pytest.approx(0.8)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "scan").glob("*/*")}
    again = invoke(command, env={"COLUMNS": "80"})
    assert again.exit_code == 0 and again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "scan").glob("*/*")} == before


def test_nothing_is_compared_with_a_reference_that_blew_up(tmp_path: Path) -> None:
    """Steps of 20 fs tear flexible water apart; the accelerated run is then judged by its temperatures alone."""
    settings = ScanSettings(
        outer=(1.0,),
        inner=(2,),
        picoseconds=0.8,
        equilibration=0.0,
        friction=20.0,
        reference_step=20.0,
        neighbors=(0.0,),
    )
    compute = ComputeSettings(platform="Reference")
    with pytest.warns(UserWarning, match=r"blew up in steps of 20 fs \(the bond of atoms .* --reference-step"):
        reference, accelerated = scan_steps(droplet(), weak_network(), tmp_path, settings, compute)
    assert (reference.verdict, reference.time_step_fs) == (Verdict.BLEW_UP, 20.0)
    assert accelerated.verdict not in (Verdict.BLEW_UP, Verdict.ENERGY_OFF)


def test_a_scan_of_nothing_is_refused() -> None:
    plan = ScanSettings((4.0, 6.0))
    assert [name for name, _ in plan.runs(droplet())] == ["reference", "outer-4fs-inner-3", "outer-6fs-inner-3"]
    for change, message in (
        ({"outer": ()}, "no step sizes"),
        ({"outer": (4.0, -1.0)}, "times above 0"),
        ({"inner": (0,)}, "1 or more"),
        ({"picoseconds": 0.1}, "give at least 0.2 ps"),
        ({"neighbors": (60.0,)}, "from -50 to 50"),
        ({"thermostat": Thermostat.ISOKINETIC, "reference": False}, "judged by their energy"),
    ):
        with pytest.raises(SpecError, match=message):
            dataclasses.replace(plan, **change)
