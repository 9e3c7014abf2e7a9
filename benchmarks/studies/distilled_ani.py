"""A machine-learned potential made faster by `distill`, from its System alone: alanine dipeptide under ANI-1x.

The teacher is the ensemble of eight networks of ANI-1x, called through ASE by openmm-ml, as people run it. The study
distils it, resuming what is there, measures the cost of a picosecond in each scheme, and, with --ps, mean energies and
widths of bonds and angles. These are of the basin C7eq alone: the molecule stays in it, or out of it, for 100 ps, and
averages over both would tell how often a short run has left it. Costs are CPU seconds of this process on one thread,
all schemes in turn. Needs torchani, ase and openmm-ml:

    python benchmarks/studies/distilled_ani.py [--work ani] [--ps 60] [--reference 1000] [--quick]

--reference PS runs 32 replicas of the teacher in one batch of torch, by the steps of best practice, for that many
picoseconds in all after 10 of each replica: the truth that they are compared with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from openmm import app, unit
from rich.console import Console
from rich.table import Table

from openmm_gnn import accelerate, load_system
from openmm_gnn.base.files import plain
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.contexts import repartition_hydrogen_mass
from openmm_gnn.md.simulation_system import SimulationSystem

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import save_results

TEMPERATURE, FRICTION_PER_PS, HEAVY, ZERO_KJ_MOL = 300.0, 5.0, 3.0, -1301400.0
SAMPLE_PS, EQUILIBRATION_PS = 0.06, 2.0
REPLICAS, REPLICA_EQUILIBRATION_PS, REFERENCE_STEP_PS = 32, 10.0, 0.002
KJ_MOL_PER_HARTREE = 2625.4996394799
PHI, PSI = (-125.0, -40.0), (0.0, 125.0)
"""The basin C7eq, degrees."""
FEWEST_FRAMES = 30


@dataclass(frozen=True)
class Scheme:
    """How the molecule is run; steps in fs, masses of hydrogens in dalton."""

    name: str
    outer_fs: float
    inner_steps: int = 0
    hydrogen_mass: float | None = None
    thermostat: str = "langevin"


SCHEMES = (
    Scheme("plain 1 fs", 1.0),
    Scheme("plain 2 fs, H 3 Da: best practice", 2.0, hydrogen_mass=HEAVY),
    Scheme("accelerated 4/1", 4.0, 4),
    Scheme("accelerated 6/1.5, H 3 Da", 6.0, 4, HEAVY),
    Scheme("isokinetic 10/1", 10.0, 10, thermostat="isokinetic"),
    Scheme("isokinetic 20/1", 20.0, 20, thermostat="isokinetic"),
)


def write_teacher(work: Path) -> None:
    """The System and its topology, unless they are there.

    Raises:
        ModuleNotFoundError: if torchani or openmm-ml is missing.
    """
    if (work / "teacher.xml").exists():
        return
    import torchani
    from openmmml import MLPotential

    named = load_system("alanine-dipeptide")
    system = MLPotential("ase").createSystem(named.topology, calculator=torchani.models.ANI1x().ase())
    work.mkdir(parents=True, exist_ok=True)
    (work / "teacher.xml").write_text(openmm.XmlSerializer.serialize(system))
    with open(work / "teacher.pdb", "w") as file:
        app.PDBFile.writeFile(named.topology, named.positions * unit.nanometer, file, keepIds=True)


def distilled(work: Path, quick: bool) -> dict[str, Any]:
    """report.json of the distillation, made now or gone on with."""
    options = ["--teacher-calls", "200", "--scan-calls", "0", "--first-calls", "60", "--steps", "20"] if quick else []
    options += ["--rounds", "1", "--last-steps", "20"] if quick else []
    command = [sys.executable, "-m", "openmm_gnn", "distill", str(work / "teacher.xml"), "--threads", "1"]
    where = ["--topology", str(work / "teacher.pdb"), "--out", str(work / "student")]
    if not (work / "student" / "report.json").exists():
        subprocess.run([*command, *where, *options], check=True)
    report: dict[str, Any] = json.loads((work / "student" / "report.json").read_text())
    return report


def context_of(scheme: Scheme, teacher: SimulationSystem, student: Path, start: np.ndarray) -> openmm.Context:
    """A running molecule."""
    if scheme.inner_steps:
        system, integrator = accelerate(
            teacher.system,
            teacher.topology,
            student,
            inner_steps=scheme.inner_steps,
            time_step=scheme.outer_fs / 1000,
            temperature=TEMPERATURE,
            friction=FRICTION_PER_PS if scheme.thermostat == "langevin" else None,
            hydrogen_mass=scheme.hydrogen_mass,
            thermostat=scheme.thermostat,
        )
    else:
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(teacher.system))
        if scheme.hydrogen_mass is not None:
            repartition_hydrogen_mass(system, teacher.topology, scheme.hydrogen_mass)
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION_PER_PS, scheme.outer_fs / 1000)
    integrator.setRandomNumberSeed(5)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(start)
    context.setVelocitiesToTemperature(TEMPERATURE, 7)
    return context


def costs(contexts: dict[str, openmm.Context], steps: dict[str, float], rounds: int) -> dict[str, float]:
    """CPU seconds per picosecond, medians over rounds in which all schemes run one outer step each."""
    times: dict[str, list[float]] = {name: [] for name in contexts}
    for _ in range(rounds + 2):
        for name, context in contexts.items():
            begin = time.process_time()
            context.getIntegrator().step(1)
            times[name].append(time.process_time() - begin)
    return {name: float(np.median(found[2:])) * 1000 / steps[name] for name, found in times.items()}


@dataclass(frozen=True)
class Basin:
    """Averages over the frames of a run that are in C7eq."""

    energy: Estimate
    """Mean potential energy of the teacher, kJ/mol above `ZERO_KJ_MOL`."""
    bonds_pm: float
    """Standard deviation of the length of a bond of a hydrogen, mean over these."""
    angles_degrees: float
    """Standard deviation of an angle, mean over these."""
    share: float
    """Of all frames."""

    @classmethod
    def of(cls, topology: app.Topology, positions: np.ndarray, energies: np.ndarray) -> Basin | None:
        """Those of a run, (T, N, 3) nm and (T,) kJ/mol; None where it was never there."""
        frames = mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(topology))
        phi, psi = (np.degrees(angle(frames)[1][:, 0]) for angle in (mdtraj.compute_phi, mdtraj.compute_psi))
        inside = (phi > PHI[0]) & (phi < PHI[1]) & (psi > PSI[0]) & (psi < PSI[1])
        if inside.sum() < FEWEST_FRAMES:
            return None
        bonds = [(first.index, second.index) for first, second in topology.bonds()]
        hydrogens = {atom.index for atom in topology.atoms() if atom.element.atomic_number == 1}
        near: dict[int, list[int]] = {}
        for first, second in bonds:
            near.setdefault(first, []).append(second)
            near.setdefault(second, []).append(first)
        angles = [(one, at, other) for at, around in near.items() for one, other in itertools.combinations(around, 2)]
        lengths = mdtraj.compute_distances(frames[inside], [bond for bond in bonds if hydrogens & set(bond)])
        bends = np.degrees(mdtraj.compute_angles(frames[inside], angles))
        energy = mean_with_error(energies[inside])
        return cls(energy, float(1000 * lengths.std(0).mean()), float(bends.std(0).mean()), float(inside.mean()))

    @property
    def text(self) -> str:
        """For a table."""
        return f"{self.energy.format(1)}, {self.bonds_pm:.3f} pm, {self.angles_degrees:.3f} deg"


def basin_of_run(context: openmm.Context, topology: app.Topology, outer_fs: float, length_ps: float) -> Basin | None:
    """Averages along a run."""
    every = max(1, round(1000 * SAMPLE_PS / outer_fs))
    context.getIntegrator().step(round(1000 * EQUILIBRATION_PS / outer_fs))
    positions, energies = [], []
    for _ in range(round(1000 * length_ps / outer_fs / every)):
        context.getIntegrator().step(every)
        state = context.getState(energy=True, positions=True)
        positions.append(state.getPositions(asNumpy=True)._value)
        energies.append(state.getPotentialEnergy()._value - ZERO_KJ_MOL)
    return Basin.of(topology, np.array(positions), np.array(energies))


def reference(teacher: SimulationSystem, start: np.ndarray, total_ps: float) -> Iterator[tuple[float, Basin | None]]:
    """Picoseconds and averages of replicas that run in one batch, by Langevin dynamics in torch, each tenth."""
    import torchani

    model = torchani.models.ANI1x(periodic_table_index=True).requires_grad_(False)
    numbers = torch.tensor([atom.element.atomic_number for atom in teacher.topology.atoms()])
    heavy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(teacher.system))
    repartition_hydrogen_mass(heavy, teacher.topology, HEAVY)
    masses = torch.tensor([heavy.getParticleMass(k)._value for k in range(len(numbers))])[:, None]
    spread = (BOLTZMANN_KJ_MOL_K * TEMPERATURE / masses).sqrt()
    generator = torch.Generator().manual_seed(1)
    draw: Callable[[], torch.Tensor] = lambda: spread * torch.randn(positions.shape, generator=generator)  # noqa: E731

    def energies_and_forces() -> tuple[torch.Tensor, torch.Tensor]:
        angstrom = (10 * positions).requires_grad_()
        energies = model((numbers.repeat(REPLICAS, 1), angstrom)).energies
        (gradient,) = torch.autograd.grad(energies.sum(), angstrom)
        return KJ_MOL_PER_HARTREE * energies.detach().double(), -10 * KJ_MOL_PER_HARTREE * gradient

    positions = torch.tensor(start, dtype=torch.float32).repeat(REPLICAS, 1, 1)
    velocities, step = draw(), REFERENCE_STEP_PS
    keep = float(np.exp(-FRICTION_PER_PS * step))
    _, forces = energies_and_forces()
    frames, found = list[np.ndarray](), list[np.ndarray]()
    every, steps = round(SAMPLE_PS / step), round((total_ps / REPLICAS + REPLICA_EQUILIBRATION_PS) / step)
    for number in range(1, steps + 1):
        velocities = velocities + step * forces / masses
        positions = positions + 0.5 * step * velocities
        velocities = keep * velocities + (1 - keep**2) ** 0.5 * draw()
        positions = positions + 0.5 * step * velocities
        energies, forces = energies_and_forces()
        if number * step > REPLICA_EQUILIBRATION_PS and number % every == 0:
            frames.append(positions.numpy())
            found.append(energies.numpy() - ZERO_KJ_MOL)
        if found and (number % max(1, steps // 10) == 0 or number == steps):
            one_by_one = np.array(frames).transpose(1, 0, 2, 3).reshape(-1, len(numbers), 3)
            done = REPLICAS * len(found) * every * step
            yield done, Basin.of(teacher.topology, one_by_one, np.array(found).T.reshape(-1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("ani"))
    parser.add_argument("--ps", type=float, default=0.0, help="length of the runs for averages; 0: none")
    parser.add_argument("--reference", type=float, default=0.0, help="picoseconds of the batch of replicas; 0: none")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        write_teacher(arguments.work)
    except ModuleNotFoundError as error:
        print(f"skipped: {error}; the teacher needs torchani, ase and openmm-ml")
        return
    report = distilled(arguments.work, arguments.quick)
    teacher = load_system(arguments.work / "student")
    labels = np.load(arguments.work / "student" / "labels.npy", mmap_mode="r", allow_pickle=False)
    start = np.array(labels["positions"][labels["purpose"] == 2][-1])
    contexts = {one.name: context_of(one, teacher, arguments.work / "student", start) for one in SCHEMES}
    found = costs(contexts, {one.name: one.outer_fs for one in SCHEMES}, 2 if arguments.quick else 25)
    table = Table("scheme", "CPU s/ps", "over best practice", "C7eq: mean U (kJ/mol), widths of X-H and angles")
    rows = []
    for scheme in SCHEMES:
        basin = None
        if arguments.ps:
            basin = basin_of_run(contexts[scheme.name], teacher.topology, scheme.outer_fs, arguments.ps)
        gain = found[SCHEMES[1].name] / found[scheme.name]
        rows.append({"scheme": scheme.name, "cpu_s_per_ps": found[scheme.name], "gain": gain, "basin": plain(basin)})
        table.add_row(scheme.name, f"{found[scheme.name]:.2f}", f"{gain:.2f}", "" if basin is None else basin.text)
    truth = None
    for done, truth in reference(teacher, start, arguments.reference) if arguments.reference else ():
        print(f"reference: {done:.0f} ps, {'never in C7eq' if truth is None else truth.text}", flush=True)
    Console().print(table)
    results = {"rows": rows, "report": {key: report[key] for key in ("calls", "cpu_seconds", "rounds", "steps")}}
    results["reference"] = plain(truth)
    save_results("distilled_ani", results, arguments.quick)


if __name__ == "__main__":
    main()
