"""What a distillation says in the end: force errors over evaluations of the teacher, and lines that use the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis.distillation.rounds import LAST, Distilled
from openmm_gnn.analysis.distillation.settings import DistillSettings
from openmm_gnn.analysis.distillation.steps import Steps
from openmm_gnn.analysis.distillation.student import frames_of_records
from openmm_gnn.analysis.force_checks import NetworkForces
from openmm_gnn.analysis.validation import Validation
from openmm_gnn.base.figures import QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file, terminal_table
from openmm_gnn.base.files import plain, write_json
from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM
from openmm_gnn.learning.training.data_sets import force_errors
from openmm_gnn.networks.weights import load_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

REPORT, FIGURE = "report.json", "report.png"
SHOWN_FRAMES = 40


@dataclass(frozen=True)
class Distillation:
    """A finished distillation."""

    distilled: Distilled
    settings: DistillSettings
    steps: Steps
    validation: Validation | None
    final_errors: list[float]
    """Relative force error of each round's student on all frames that are held out in the end."""
    calls: dict[str, int]
    """Evaluations of the teacher: labels and runs, scan, validation, and all together."""
    temperature: float
    cpu_seconds: float
    """CPU time of this process, in the call that finished."""

    @property
    def python(self) -> str:
        """Lines of Python that run the accelerated System."""
        found, where = self.steps, str(self.distilled.directory)
        heavy = f", hydrogen_mass={self.distilled.hydrogen_mass:g}" if self.distilled.hydrogen_mass else ""
        return "\n".join(
            [
                "from openmm_gnn import accelerate, load_system",
                f"teacher = load_system({where!r})",
                f"system, integrator = accelerate(teacher.system, teacher.topology, {where!r}, "
                f"time_step={found.time_step_fs / 1000:g}, inner_steps={found.inner_steps}, "
                f"temperature={self.temperature:g}{heavy})",
            ]
        )

    @property
    def command(self) -> str:
        """The command that runs the accelerated System."""
        found, where = self.steps, str(self.distilled.directory)
        heavy = f" --hydrogen-mass {self.distilled.hydrogen_mass:g}" if self.distilled.hydrogen_mass else ""
        return (
            f"openmm-gnn simulate {where} --model {where} --accelerate --time-step {found.time_step_fs:g} "
            f"--inner-steps {found.inner_steps} --temperature {self.temperature:g}{heavy} --out run"
        )


def final_errors(distilled: Distilled) -> list[float]:
    """Relative force error of each round's student on the same frames: all that are held out in the end."""
    frames = [frames_of_records(distilled.system, distilled.held_out)]
    folder = distilled.directory / "rounds"
    return [force_errors(load_model(folder / one.name / "network"), frames).relative_error for one in distilled.rounds]


def report_document(found: Distillation) -> dict[str, Any]:
    """The contents of report.json."""
    return {
        "teacher": found.distilled.system.name,
        "forces": found.distilled.forces.value,
        "settings": plain(found.settings),
        "calls": found.calls,
        "cpu_seconds": found.cpu_seconds,
        "rounds": [
            {**plain(one), "final_relative_error": error}
            for one, error in zip(found.distilled.rounds, found.final_errors, strict=True)
        ],
        "steps": {
            "time_step_fs": found.steps.time_step_fs,
            "inner_steps": found.steps.inner_steps,
            "hydrogen_mass": found.distilled.hydrogen_mass,
            "stable": found.steps.stable,
            "scan": plain(found.steps.rows),
        },
        "validation": None if found.validation is None else found.validation.to_dict(),
        "python": found.python.splitlines(),
        "command": found.command,
    }


def write_report(found: Distillation) -> None:
    """Write report.json and report.png into the directory of the distillation."""
    directory = found.distilled.directory
    write_json(directory / REPORT, plain(report_document(found)), indent=2)
    title = f"{found.distilled.system.name}: a network of {found.calls['labels']} evaluations of the teacher"
    with figure_file(directory / FIGURE, 10.5, 4.4, title) as figure:
        errors, forces = figure.subplots(1, 2)
        _draw_errors(errors, found)
        _draw_forces(forces, found)


def report_table(found: Distillation) -> Table:
    """The rounds for the terminal."""
    rows = [
        (
            one.name,
            str(one.calls),
            str(one.num_frames),
            f"{one.errors['mae']:.1f}",
            f"{100 * error:.2f} %",
            f"{one.errors['mean_cosine']:.4f}",
        )
        for one, error in zip(found.distilled.rounds, found.final_errors, strict=True)
    ]
    headings = ("round", "teacher calls", "frames", "MAE (meV/A)", "error on all held out", "mean cosine")
    return terminal_table("Force errors on held-out frames", headings, rows)


def _draw_errors(axes: Axes, found: Distillation) -> None:
    rounds, errors = found.distilled.rounds, [100 * error for error in found.final_errors]
    numbered = [k for k, one in enumerate(rounds) if not one.name.startswith(LAST)]
    axes.plot([rounds[k].calls for k in numbered], [errors[k] for k in numbered], "o-", color=REFERENCE_COLOR,
              label="student of each round")  # fmt: skip
    axes.plot([rounds[-1].calls], errors[-1:], "s", color=RUN_COLOR, label="last training")
    axes.set(xlabel="evaluations of the teacher", ylabel="force error (%)", title="Held-out frames", ylim=(0, None))
    axes.set_xlim(0, None)
    axes.legend()


def _draw_forces(axes: Axes, found: Distillation) -> None:
    rows = found.distilled.held_out[-SHOWN_FRAMES:]
    system = found.distilled.system
    network = NetworkForces(load_model(found.distilled.model), system.topology, system.box_vectors)
    predicted = [network(row["positions"], row["box_vectors"] if system.periodic else None) for row in rows]
    scale = MEV_PER_ANGSTROM_PER_KJ_MOL_NM / 1000
    teacher = scale * np.array([row["forces"] for row in rows]).reshape(-1)
    student = scale * np.array(predicted).reshape(-1)
    span = 1.05 * float(np.abs(teacher).max())
    axes.plot([-span, span], [-span, span], color=QUIET_COLOR, linewidth=0.8)
    axes.plot(teacher, student, ".", color=REFERENCE_COLOR, markersize=2.5, alpha=0.5)
    axes.set(xlabel="teacher (eV/A)", ylabel="network (eV/A)", title="Components of held-out forces")
    axes.set(xlim=(-span, span), ylim=(-span, span), aspect="equal")
