"""How far averages are off at long outer steps: isokinetic and Langevin dynamics with students of known error.

    python benchmarks/studies/isokinetic_steps.py [--ps 200] [--rows NAME ...]

The teacher is a force field, alanine dipeptide in vacuum without constraints, and the student the same with parameters
that are off by as many per cent as is asked for: so each run is cheap, and the teacher's own short steps give the
truth. Mean energies of the teacher in kJ/mol: all, its bonds, its angles. Errors are those of the means of ten blocks.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app
from rich.console import Console
from rich.table import Table

from openmm_gnn import load_system
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.md.contexts import repartition_hydrogen_mass
from openmm_gnn.md.leapfrog_steps import IsokineticIntegrator
from openmm_gnn.md.multiple_time_steps import Bath, MultipleTimeStepIntegrator, TimeLevels

TEMPERATURE, SAMPLE_PS, EQUILIBRATION_PS = 300.0, 0.02, 5.0
BONDS, ANGLES, REST, NETWORK, NEGATED = 0, 1, 2, 31, 30


@dataclass(frozen=True)
class Row:
    """One run; times in fs, frictions in 1/ps."""

    name: str
    outer_fs: float
    error: float = 0.0
    """Of the student's parameters, as a fraction."""
    isokinetic: bool = True
    friction: float = 10.0
    time_fs: float = 10.0
    """Of the thermostat."""
    inner_fs: float = 0.5
    """Step of the student."""
    hydrogen_mass: float | None = None
    """Dalton."""
    hydrogen_friction: float | None = None
    """1/ps, of hydrogens."""


ROWS = (
    Row("langevin", 0.5, isokinetic=False, friction=5.0),
    Row("langevin", 5.0, 0.03, isokinetic=False, friction=5.0),
    Row("isokinetic", 0.5),
    Row("isokinetic", 10.0, 0.016),
    Row("isokinetic", 20.0, 0.016),
    Row("isokinetic", 10.0, 0.03),
    Row("isokinetic", 20.0, 0.03),
    Row("isokinetic", 20.0, 0.03, time_fs=5.0),
    Row("isokinetic", 20.0, 0.03, friction=100.0),
    Row("isokinetic", 10.0, 0.016, inner_fs=1.0),
    Row("isokinetic", 20.0, 0.016, inner_fs=1.0),
    Row("langevin", 8.0, 0.03, isokinetic=False, friction=1.0, hydrogen_mass=3.0),
    Row("langevin", 8.0, 0.03, isokinetic=False, friction=1.0, hydrogen_mass=3.0, hydrogen_friction=20.0),
)


def perturbed(force: openmm.Force, error: float, draw: Callable[[], float]) -> openmm.Force:
    """A copy whose strengths and charges are off by this fraction, torsions by three times as much."""
    changed = copy.deepcopy(force)
    if isinstance(changed, openmm.HarmonicBondForce):
        for index in range(changed.getNumBonds()):
            first, second, length, strength = changed.getBondParameters(index)
            lengths = length * (1 + 0.03 * error * draw()), strength * (1 + error * draw())
            changed.setBondParameters(index, first, second, *lengths)
    elif isinstance(changed, openmm.HarmonicAngleForce):
        for index in range(changed.getNumAngles()):
            *atoms, size, strength = changed.getAngleParameters(index)
            changed.setAngleParameters(
                index, *atoms, size * (1 + 0.1 * error * draw()), strength * (1 + error * draw())
            )
    elif isinstance(changed, openmm.PeriodicTorsionForce):
        for index in range(changed.getNumTorsions()):
            *rest, strength = changed.getTorsionParameters(index)
            changed.setTorsionParameters(index, *rest, strength * (1 + 3 * error * draw()))
    elif isinstance(changed, openmm.NonbondedForce):
        for index in range(changed.getNumParticles()):
            charge, sigma, epsilon = changed.getParticleParameters(index)
            changed.setParticleParameters(index, charge * (1 + error * draw()), sigma, epsilon)
    return changed


def emulated(error: float, hydrogen_mass: float | None) -> tuple[openmm.System, np.ndarray, list[int]]:
    """Teacher and student in one System, positions in nm, and indices of hydrogens; the centre of mass is free."""
    peptide = load_system("alanine-dipeptide")
    system = app.ForceField("amber14-all.xml").createSystem(peptide.topology, removeCMMotion=False)
    generator = np.random.default_rng(1)
    groups = {"HarmonicBondForce": BONDS, "HarmonicAngleForce": ANGLES}
    for force in list(system.getForces()):
        student = perturbed(force, error, generator.normal)
        student.setForceGroup(NETWORK)
        force.setForceGroup(groups.get(type(force).__name__, REST))
        system.addForce(student)
    if hydrogen_mass is not None:
        repartition_hydrogen_mass(system, peptide.topology, hydrogen_mass)
    hydrogens = [atom.index for atom in peptide.topology.atoms() if atom.element is app.element.hydrogen]
    return system, np.asarray(peptide.positions), hydrogens


def measured(row: Row, length_ps: float) -> tuple[list[Estimate], float, float]:
    """Mean energies, the student's relative error of forces, and CPU seconds per ps."""
    system, positions, hydrogens = emulated(row.error, row.hydrogen_mass)
    levels = TimeLevels(row.outer_fs / 1000, round(row.outer_fs / row.inner_fs), 1, (), NETWORK, NEGATED)
    of_hydrogens = None if row.hydrogen_friction is None else dict.fromkeys(hydrogens, row.hydrogen_friction)
    bath = Bath(TEMPERATURE, row.friction, of_hydrogens)
    integrator = (
        IsokineticIntegrator(levels, bath, time_ps=row.time_fs / 1000)
        if row.isokinetic
        else MultipleTimeStepIntegrator(levels, bath, False, system.getNumParticles())
    )
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(round(1000 * EQUILIBRATION_PS / row.outer_fs))
    energies, errors, begin = [], [], time.process_time()
    stride = max(1, round(1000 * SAMPLE_PS / row.outer_fs))
    for sample in range(round(length_ps * 1000 / row.outer_fs / stride)):
        integrator.step(stride)
        each = [
            context.getState(energy=True, groups={group}).getPotentialEnergy()._value for group in (BONDS, ANGLES, REST)
        ]
        energies.append([sum(each), each[0], each[1]])
        if sample % 50 == 0:
            true, learned = (
                np.asarray(context.getState(forces=True, groups=groups).getForces(asNumpy=True)._value)
                for groups in ({BONDS, ANGLES, REST}, {NETWORK})
            )
            errors.append(np.abs(learned - true).mean() / np.abs(true).mean())
    seconds = (time.process_time() - begin) / length_ps
    return [mean_with_error(series) for series in np.transpose(energies)], float(np.mean(errors)), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ps", type=float, default=200.0)
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of the rows to run, from 0; all if left out")
    arguments = parser.parse_args()
    table = Table(title=f"alanine dipeptide in vacuum, {arguments.ps:g} ps a row")
    headings = (
        "dynamics",
        "outer fs",
        "inner fs",
        "error %",
        "friction",
        "tau fs",
        "U",
        "U bonds",
        "U angles",
        "CPU s/ps",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for number, row in enumerate(ROWS):
        if arguments.rows and number not in arguments.rows:
            continue
        try:
            means, error, seconds = measured(row, arguments.ps)
            found = [*(mean.format(1) for mean in means), f"{seconds:.2f}"]
        except (openmm.OpenMMException, ValueError) as stop:
            error, found = float("nan"), [str(stop)[:24], "-", "-", "-"]
        time_fs = f"{row.time_fs:g}" if row.isokinetic else "-"
        friction = f"{row.friction:g}" + ("" if row.hydrogen_friction is None else f", H {row.hydrogen_friction:g}")
        name = row.name if row.hydrogen_mass is None else f"{row.name}, H {row.hydrogen_mass:g} Da"
        cells = (name, f"{row.outer_fs:g}", f"{row.inner_fs:g}", f"{100 * error:.1f}", friction, time_fs, *found)
        print(*cells, sep="  ", flush=True)
        table.add_row(*cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
