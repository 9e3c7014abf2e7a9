"""All that should be measured of a network before it is trusted, in one report; each figure has a verdict in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis import verdicts
from openmm_gnn.analysis.dynamics_checks import EnergyTrace, StabilityRun, constant_energy_run, stability_run
from openmm_gnn.analysis.force_checks import (
    NetworkForces,
    Teacher,
    atomic_numbers,
    droplet,
    jacobian_asymmetry,
    network_system,
    relative_difference,
    relative_net_force,
    relative_net_torque,
)
from openmm_gnn.analysis.size_transfer import SizeResult, replication_error, size_transfer, sizes_for
from openmm_gnn.analysis.validation_frames import Source, source_of
from openmm_gnn.analysis.verdicts import FINE, FLAT, LOOK, Check, ValidationSettings
from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file, terminal_table
from openmm_gnn.base.files import plain, write_json
from openmm_gnn.base.statistics import running_mean
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.learning.training.training_distribution import TRAINING_DISTRIBUTION
from openmm_gnn.learning.training.training_distribution import scores as distribution_scores
from openmm_gnn.md.run_settings import RunCourse, RunSettings
from openmm_gnn.md.systems.systems import NAMED_SYSTEMS
from openmm_gnn.networks.weights import load_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel

Report = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done, 0 to 1."""
SAMPLE_PS = 0.02


@dataclass
class Validation:
    """The report: checks in words and figures, and the series behind the figure."""

    model: str
    system: str
    num_atoms: int
    temperature: float
    checks: list[Check] = field(default_factory=list)
    energy: EnergyTrace | None = None
    stability: StabilityRun | None = None
    sizes: list[SizeResult] = field(default_factory=list)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """Distances of neighbourhoods from the training data, by where the atoms come from."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a figure that was not measured is null."""
        return {
            "model": self.model,
            "system": self.system,
            "num_atoms": self.num_atoms,
            "temperature_K": self.temperature,
            "verdict": verdicts.of_all(self.checks),
            "checks": plain(self.checks),
            "sizes": [
                {
                    "num_molecules": result.num_molecules,
                    "edge_nm": result.edge_nm,
                    **({"failure": result.failure} if result.errors is None else asdict(result.errors)),
                }
                for result in self.sizes
            ],
        }


def validate(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ValidationSettings | None = None,
    data: str | os.PathLike[str] | None = None,
    system: str | None = None,
    topology: str | os.PathLike[str] | None = None,
    report: Report = lambda *_: None,
) -> Validation:
    """Validate a network: balance of forces, energy drift, temperatures, stability, extrapolation, box sizes.

    Args:
        model: shipped name, bundle, or exported module.
        out: directory of validation.png and validation.json; a run that blows up leaves its last good frame there.
        data: directory written by `openmm-gnn label`, which brings frames, teacher and the defaults of its runs.
        system: the teacher, as for `load_system`, where there are no data; a shipped model knows its own.
        topology: of a System given as .xml.
    Raises:
        DataError: if neither data nor a system is known, or the data is not of the network's forces.
        TopologyError, SpecError: before any work, if network, system or settings do not fit each other.
    """

    settings, network = settings or ValidationSettings(), load_model(model)
    source = source_of(Path(model), network, settings, data, system, topology, report)
    return validate_on(source, network, Path(model).stem, Path(out), settings, report)


def validate_on(
    source: Source, model: ForceModel, name: str, out: Path, settings: ValidationSettings, report: Report
) -> Validation:
    """Validate a network on labelled frames that are there; arguments and errors as `validate`."""
    found = _measure(name, model, source, out, settings, report)
    save_validation(found, out / "validation.png")
    document = {**found.to_dict(), "settings": {**asdict(settings), "frames": len(source.frames)}}
    write_json(out / "validation.json", document, indent=2)
    return found


def _measure(
    name: str, model: ForceModel, source: Source, directory: Path, settings: ValidationSettings, report: Report
) -> Validation:
    system, frames, part, named = source
    assert settings.sizes is not None and settings.stability_ps is not None
    sizes = sizes_for(named, settings.sizes) if named in NAMED_SYSTEMS else []
    found = Validation(name, system.name, len(system.positions), system.temperature)
    start = frames[0]
    replaced = network_system(system, model, part, settings.backend, start.box)
    directory.mkdir(parents=True, exist_ok=True)

    _check_forces(found, model, source, settings, report)
    _check_constant_energy(found, model, source, replaced, settings, report)
    lasting = _run_settings(system, settings.stability_ps, settings.seed)
    found.stability = stability_run(
        replaced,
        system.topology,
        start.positions,
        lasting,
        directory,
        platform=settings.platform,
        report=lambda done: report("stability and equipartition", done),
    )
    found.checks += verdicts.equipartition(found.stability, system.temperature)
    found.checks.append(verdicts.stability(found.stability))
    _check_extrapolation(found, model, source)
    if start.box is not None:
        report("copies of a frame", 0.0)
        found.checks.append(verdicts.replication(replication_error(model, system, start)))
        report("copies of a frame", 1.0)
    if named is not None and sizes and start.box is not None:
        found.sizes = size_transfer(named, model, part, sizes, start, platform=settings.platform, report=report)
        found.checks += verdicts.sizes(found.sizes)
    else:
        why = "left out" if not settings.sizes else "only a named system in a box can grow: give --system"
        found.checks.append(verdicts.not_measured("box-size transfer", why))
    return found


def _check_forces(
    found: Validation, model: ForceModel, source: Source, settings: ValidationSettings, report: Report
) -> None:
    """Errors, net force, net torque, covariance and the Jacobian."""
    import torch

    from openmm_gnn.learning.training.frames import ForceErrorMeter, random_rotation

    system, frames = source.system, source.frames
    atoms, _ = atomic_numbers(system)
    meter, net, turned = ForceErrorMeter(), [], []
    rotation = random_rotation(np.random.default_rng(settings.seed))
    network = NetworkForces(model, system.topology, frames[0].box)
    for index, frame in enumerate(frames):
        predicted = network(frame.positions, frame.box)[atoms]
        meter.add(torch.from_numpy(predicted), torch.from_numpy(np.array(frame.forces[atoms], dtype=np.float64)))
        net.append(relative_net_force(predicted))
        again = network(frame.positions @ rotation, None if frame.box is None else frame.box @ rotation)[atoms]
        turned.append(relative_difference(again, predicted @ rotation))
        report("forces", (index + 1) / len(frames))
    frame = frames[0]
    torque = None
    if model.pair_term is None or model.pair_term.charge_term is None:  # charges on a grid know no open space
        topology, cut = droplet(system.topology, frame.positions, frame.box)
        torque = relative_net_torque(cut, NetworkForces(model, topology, None)(cut))
    found.checks += verdicts.force_errors(meter.errors())
    found.checks += verdicts.balances(float(np.mean(net)), torque, float(np.mean(turned)))

    def forces_of_atoms(positions: np.ndarray) -> np.ndarray:
        everywhere = np.array(frame.positions, dtype=np.float64)
        everywhere[atoms] = positions
        return network(everywhere, frame.box)[atoms]

    num_probes = settings.num_probes or 0
    asymmetry = jacobian_asymmetry(
        forces_of_atoms,
        frame.positions[atoms],
        num_probes,
        seed=settings.seed,
        report=lambda done: report("Jacobian", done / num_probes),
    )
    found.checks.append(verdicts.asymmetry(asymmetry))


def _check_constant_energy(
    found: Validation, model: ForceModel, source: Source, replaced: Any, settings: ValidationSettings, report: Report
) -> None:
    assert settings.constant_energy_ps is not None
    conserving, start = model.conservative, source.frames[0]
    teacher = None if conserving else Teacher(source.system, source.part, settings.platform)
    try:
        found.energy = constant_energy_run(
            replaced,
            start.positions,
            _run_settings(source.system, settings.constant_energy_ps, settings.seed),
            energy=None if teacher is None else lambda positions: teacher.energy(positions, start.box),
            own_energy=conserving,
            platform=settings.platform,
            report=lambda done: report("constant energy", done),
        )
    except NonFiniteError as error:
        found.checks.append(verdicts.blown_up("energy drift", str(error)))
        return
    found.checks += verdicts.drift(found.energy, "the network's energy" if conserving else "the teacher's energy")


def _check_extrapolation(found: Validation, model: ForceModel, source: Source) -> None:
    """Neighbourhoods of the frames that were given, and of those that the network's run met."""
    distribution = model.spec.metadata.get(TRAINING_DISTRIBUTION)
    if distribution is None:
        found.checks.append(
            verdicts.not_measured("extrapolation", "the bundle holds no training distribution: train it again")
        )
        return
    atoms, numbers = atomic_numbers(source.system)
    visited = [] if found.stability is None else found.stability.frames
    groups = {
        "teacher's frames": [(frame.positions, frame.box) for frame in source.frames],
        "network's run": [(positions, source.frames[0].box) for positions in visited],
    }
    for where, found_there in groups.items():
        if found_there:
            found.scores[where] = np.concatenate(
                [distribution_scores(distribution, (numbers, x[atoms], box)) for x, box in found_there]
            )
            found.checks.append(verdicts.extrapolation(where, found.scores[where], 1 - distribution["quantile"]))


def _run_settings(system: SimulationSystem, time_ps: float, seed: int) -> RunCourse:
    """The system's own integrator for this time; its energies and temperatures are sampled often."""
    every = max(1, min(round(SAMPLE_PS / system.time_step_ps), round(time_ps / system.time_step_ps) // 20))
    steps = every * max(10, round(time_ps / system.time_step_ps / every))
    return RunSettings(steps=steps, stride=every, equilibration=0, seed=seed).course(system)


def save_validation(validation: Validation, path: Path | str) -> Path:
    """Draw the report into a PNG (or whatever the path's ending says)."""
    title = f"{validation.model}: {validation.system}, {validation.num_atoms} particles, {validation.temperature:g} K"
    with figure_file(path, 11.5, 7.4, title) as figure:
        (energy, temperature), (neighborhood, size) = figure.subplots(2, 2)
        _draw_energy(energy, validation)
        _draw_temperatures(temperature, validation)
        _draw_neighborhoods(neighborhood, validation)
        _draw_sizes(size, validation)
    return Path(path)


def validation_table(validation: Validation) -> Table:
    """The report as a table for the terminal: each figure with its verdict in words."""
    colors = {FINE: "green", LOOK: "yellow"}
    title = f"{validation.model} on {validation.system}, {validation.num_atoms} particles, {validation.temperature:g} K"
    rows = [
        (check.name, check.text, f"[{colors.get(check.verdict, 'dim')}]{check.verdict}[/]", check.words)
        for check in validation.checks
    ]
    return terminal_table(title, ("quantity", "figure", "verdict", "what it says"), rows, left=(0, 2, 3))


def _draw_energy(axes: Axes, validation: Validation) -> None:
    trace = validation.energy
    axes.set(title="Constant energy", xlabel="time (ps)", ylabel="change of energy (K per degree of freedom)")
    if trace is None:
        return _say(axes, "blew up, or was not measured")
    to_kelvin = kinetic_temperature(1.0, trace.freedom)
    series = [("kinetic - work: the integrator", trace.kinetic - trace.work, QUIET_COLOR)]
    if trace.potential is not None:
        series.append(("kinetic + potential", trace.kinetic + trace.potential, RUN_COLOR))
    for label, values, color in series:
        axes.plot(trace.times_ps, (values - values[0]) * to_kelvin, color=color, label=label)
    axes.axhline(0, color=QUIET_COLOR, linewidth=0.6)
    axes.legend()


def _draw_temperatures(axes: Axes, validation: Validation) -> None:
    run = validation.stability
    axes.set(title="Temperature of each element", xlabel="time (ps)", ylabel="temperature (K)")
    if run is None or not len(run.times_ps):
        return _say(axes, "the run ended at once")
    window = max(1, len(run.times_ps) // 50)
    for index, (element, color) in enumerate(zip(run.elements, COLORS * len(run.elements), strict=False)):
        values = run.element_temperatures[:, index]
        axes.plot(run.times_ps, values, color=color, linewidth=0.4, alpha=0.25)
        axes.plot(run.times_ps, running_mean(values, window), color=color, label=element)
    axes.axhline(validation.temperature, color=QUIET_COLOR, linewidth=0.8)
    if run.failure:
        axes.axvline(run.times_ps[-1], color=RUN_COLOR, linestyle=":", label="blew up")
    axes.legend(loc="lower right")


def _draw_neighborhoods(axes: Axes, validation: Validation) -> None:
    axes.set(title="Neighbourhoods", xlabel="distance from the training data (1: its border)", ylabel="atoms (%)")
    if not validation.scores:
        return _say(axes, "the bundle holds no training distribution")
    last = max(1.5, *(float(np.quantile(scores, 0.9999)) for scores in validation.scores.values()))
    bins = np.linspace(0, last, 60)
    for (where, scores), color in zip(validation.scores.items(), COLORS, strict=False):
        counts, _ = np.histogram(scores, bins)
        axes.stairs(100 * counts / len(scores), bins, color=color, label=where, linewidth=1.4)
    axes.axvline(1, color=QUIET_COLOR, linewidth=0.8)
    axes.set_yscale("log")
    axes.legend()


def _draw_sizes(axes: Axes, validation: Validation) -> None:
    axes.set(title="Boxes of other sizes", xlabel="molecules", ylabel="relative force error (%)")
    measured = [(r.num_molecules, 100 * r.errors.relative_error) for r in validation.sizes if r.errors is not None]
    if not measured:
        return _say(axes, "blew up, or was not measured")
    counts, errors = zip(*measured, strict=True)
    axes.axhspan(
        (1 - FLAT) * errors[0], (1 + FLAT) * errors[0], color=QUIET_COLOR, alpha=0.15, linewidth=0, label="within 10 %"
    )
    axes.plot(counts, errors, "o-", color=REFERENCE_COLOR)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1.3 * max(errors))
    axes.legend()


def _say(axes: Axes, words: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=QUIET_COLOR)
