"""The time step of a System follows its masses and constraints, however it came, and others are questioned."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import openmm
import pytest
from openmm import app, unit

from openmm_gnn.md.contexts import repartition_hydrogen_mass
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.md.time_steps import longest_time_step

PEPTIDE = load_system("alanine-dipeptide")
FORCE_FIELD = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")


@cache
def peptide(constraints: object, hydrogen_mass: float | None = None) -> SimulationSystem:
    """With hydrogens of this mass in dalton."""
    mass = None if hydrogen_mass is None else hydrogen_mass * unit.amu
    system = FORCE_FIELD.createSystem(PEPTIDE.topology, constraints=constraints, hydrogenMass=mass)
    return replace(PEPTIDE, system=system, bonded_substeps=1)


@pytest.mark.parametrize(
    ("constraints", "hydrogen_mass", "longest"),
    [
        (None, None, 0.001),
        (None, 3.0, 0.001),
        (app.HBonds, None, 0.002),
        (app.HBonds, 1.4, 0.002),
        (app.HBonds, 1.5, 0.004),
        (app.HBonds, 3.0, 0.004),
        (app.AllBonds, None, 0.002),
    ],
)
def test_a_system_from_xml_has_the_step_of_its_masses_and_constraints(
    constraints: object, hydrogen_mass: float | None, longest: float, tmp_path: Path
) -> None:
    given = peptide(constraints, hydrogen_mass)
    assert longest_time_step(given.system, given.topology)[0] == longest
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(given.system))
    with open(tmp_path / "start.pdb", "w") as file:
        app.PDBFile.writeFile(given.topology, given.positions * unit.nanometer, file)
    loaded = load_system(tmp_path / "system.xml", tmp_path / "start.pdb")
    assert RunSettings().course(loaded).time_step_ps == longest


def test_rigid_water_does_not_shorten_the_step_of_heavy_hydrogens() -> None:
    water = load_system("tip3p")
    assert longest_time_step(water.system, water.topology)[0] == 0.002
    assert longest_time_step(water.system, water.topology, hydrogen_mass=4.0)[0] == 0.004
    both = app.Modeller(PEPTIDE.topology, PEPTIDE.positions * unit.nanometer)
    both.add(water.topology, (water.positions + 5.0) * unit.nanometer)
    both.topology.setPeriodicBoxVectors(None)
    heavy = FORCE_FIELD.createSystem(both.topology, constraints=app.HBonds, hydrogenMass=3 * unit.amu)
    assert longest_time_step(heavy, both.topology)[0] == 0.004
    assert longest_time_step(load_system("argon").system, load_system("argon").topology)[0] == 0.002


def test_heavier_hydrogens_that_are_asked_for_lengthen_the_step() -> None:
    fixed = replace(peptide(app.HBonds), time_step_ps=0.002)
    assert RunSettings(hydrogen_mass=3.0).course(fixed).time_step_ps == 0.004
    assert RunSettings(hydrogen_mass=3.0, time_step=2.0).course(fixed).time_step_ps == 0.002
    free = replace(peptide(None), time_step_ps=0.001)
    assert RunSettings(hydrogen_mass=3.0).course(free).time_step_ps == 0.001


@pytest.mark.parametrize(
    ("constraints", "hydrogen_mass", "asked", "said"),
    [
        (
            None,
            None,
            {"time_step": 2.0},
            "2 fs, where 1 fs is customary, as the bonds of 12 hydrogens are free",
        ),
        (None, None, {"time_step": 1.0}, ""),
        (None, None, {"time_step": 3.0, "bonded_substeps": 6}, ""),
        (
            app.HBonds,
            None,
            {"time_step": 4.0},
            "4 fs, where 2 fs is customary, .* fixed, and hydrogens have 1.01 Da",
        ),
        (app.HBonds, None, {"time_step": 4.0, "hydrogen_mass": 3.0}, ""),
        (app.HBonds, 3.0, {"time_step": 40.0}, "40 fs, where 4 fs is customary"),
        (app.HBonds, None, {"accelerate": True, "time_step": 6.0}, ""),
        (app.HBonds, None, {"accelerate": True, "time_step": 30.0}, "10 fs, where 4 fs"),
    ],
)
def test_steps_beyond_what_is_customary_are_questioned(
    constraints: object, hydrogen_mass: float | None, asked: dict, said: str
) -> None:
    given = peptide(constraints, hydrogen_mass)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        RunSettings(**asked).course(given)
    assert len(found) == bool(said)
    if said:
        with pytest.warns(UserWarning, match=said):
            RunSettings(**asked).course(given)


def test_named_systems_keep_their_steps_without_a_question() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("argon", "tip3p", "tip4pew", "amoeba-water", "alanine-dipeptide"):
            system = load_system(name)
            assert RunSettings(time_step=1000 * system.time_step_ps).course(system).time_step_ps == system.time_step_ps
        heavy = copy.deepcopy(load_system("amoeba-water"))
        repartition_hydrogen_mass(heavy.system, heavy.topology, 4.0)
        RunSettings(time_step=3.0, bonded_substeps=6).course(heavy)
