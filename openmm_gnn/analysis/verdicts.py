"""The settings of a validation, and what each of its figures means in words: fine, or look here, beyond a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import SettingsError, positive, whole
from openmm_gnn.base.statistics import Estimate

if TYPE_CHECKING:
    from openmm_gnn.analysis.dynamics_checks import EnergyTrace, StabilityRun
    from openmm_gnn.analysis.size_transfer import SizeResult
    from openmm_gnn.learning.training.frames import ForceErrors

FULL_SIZES = (258, 887, 2094, 4085, 13786, 24093)
"""Molecules; those of table 3 of the GAMD paper, J. Chem. Phys. 156, 144103 (2022)."""
QUICK_SIZES = (258, 887, 2094)
_FULL = {"stability_ps": 100.0, "constant_energy_ps": 10.0, "num_probes": 32, "sizes": FULL_SIZES}
_QUICK = {"stability_ps": 2.0, "constant_energy_ps": 1.0, "num_probes": 12, "sizes": QUICK_SIZES}
BALANCE = 1e-3
"""Net force, net torque and loss of covariance, relative; float32 leaves 1e-6."""
SYMMETRIC = 1e-3
"""Largest asymmetry of a Jacobian that is taken for none: differences of float32 forces leave some 1e-4."""
DRIFT_K_PER_NS = 10.0
"""A thermostat of 1/ps takes this out a hundred times over."""
TEMPERATURE = 0.01
NOISE = 0.1
"""Deviation of a temperature, relative, that the noise of a short run may excuse: a run that heats is noisy too."""
OUTSIDE_FACTOR = 5.0
"""Multiple of the fraction of training atoms that lie outside by definition."""
FLAT = 0.1
FINE, LOOK, NOT_MEASURED = "fine", "look here", "not measured"


@dataclass(frozen=True)
class ValidationSettings:
    """How long and how often to look. What is None takes its value from `quick`."""

    quick: bool = False
    """Take shorter runs and smaller boxes, a few minutes in all."""
    stability_ps: float | None = None
    """Length of the run with a thermostat, ps. Default: 100, with quick 2."""
    constant_energy_ps: float | None = None
    """Length of the run at constant energy, ps. Default: 10, with quick 1."""
    num_probes: int | None = None
    """Number of random directions in which the Jacobian of the forces is measured. Default: 32, with quick 12."""
    sizes: tuple[int, ...] | None = None
    """Numbers of molecules per box, for the transfer of a named system to other box sizes; `none` leaves this out.
    Default: 258 to 24093, with quick to 2094."""
    frames: int = 4
    """Number of frames for the checks of single forces."""
    seeds: tuple[int, ...] = ()
    """Seeds of the trajectories of the data to take frames from. Default: those that were not trained on."""
    seed: int = 1
    """Random seed of the velocities and probes."""
    platform: str = "auto"
    """OpenMM platform; auto: CUDA where it works, else CPU."""
    backend: str = "auto"
    """Backend of the network's force: auto, torchforce or pythonforce."""

    def __post_init__(self) -> None:
        for name, value in (_QUICK if self.quick else _FULL).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        positive(self, "stability_ps", "constant_energy_ps")
        whole(self, 3, "num_probes")
        whole(self, 1, "frames", "seed")
        if any(size < 1 for size in self.sizes or ()):
            raise SettingsError(self, "sizes", "give numbers of molecules, 1 or more")

    @property
    def equilibration_ps(self) -> float:
        """Time before the first frame of the teacher's run, at most."""
        return 2.0 if self.quick else 20.0


@dataclass(frozen=True)
class Check:
    """One figure and what it means."""

    name: str
    value: float
    """NaN if it could not be measured."""
    error: float
    """Standard error; NaN where there is none."""
    unit: str
    text: str
    """The figure as it is printed."""
    verdict: str
    """FINE, LOOK or NOT_MEASURED."""
    words: str


def _check(
    name: str, value: float, text: str, fine: bool, words: str, error: float = math.nan, unit: str = ""
) -> Check:
    return Check(name, float(value), float(error), unit, text, FINE if fine else LOOK, words)


def not_measured(name: str, words: str) -> Check:
    """A figure that was left out, and why."""
    return Check(name, math.nan, math.nan, "", "-", NOT_MEASURED, words)


def blown_up(name: str, words: str) -> Check:
    """A figure that a run should have given which blew up; the words are those of the error."""
    return Check(name, math.nan, math.nan, "", "failed", LOOK, words)


def of_all(checks: Sequence[Check]) -> str:
    """The verdict on a network by all checks, in words."""
    wrong, unknown = ([one.name for one in checks if one.verdict == verdict] for verdict in (LOOK, NOT_MEASURED))
    rest = f"; not measured: {', '.join(unknown)}" if unknown else ""
    return f"{LOOK}: {', '.join(wrong)}{rest}" if wrong else f"{FINE}, {len(checks) - len(unknown)} checks{rest}"


def force_errors(errors: ForceErrors) -> list[Check]:
    """Beside the teacher: no verdict can be general, so it says only whether the direction is right."""
    figure = f"{100 * errors.relative_error:.2f} %"
    words = f"MAE {errors.mae:.2f} meV/A, mean cosine {errors.mean_cosine:.5f}, {errors.num_frames} frame(s)"
    fine = errors.mean_cosine > 0.98
    return [_check("force error, relative", errors.relative_error, figure, fine, words)]


def balances(net_force: float, net_torque: float | None, turned: float) -> list[Check]:
    """Net force, net torque of a droplet if there is one, and the change of forces when everything is turned."""
    checks: list[Check] = []

    def check(name: str, value: float, well: str, badly: str) -> None:
        checks.append(_check(name, value, f"{value:.1e}", value < BALANCE, well if value < BALANCE else badly))

    check(
        "net force / mean |F|", net_force, "forces cancel", "the whole is pushed: keep a CMMotionRemover in the System"
    )
    if net_torque is not None:
        check("net torque of a droplet", net_torque, "torques cancel", "a droplet would start to spin")
    check("change under rotation", turned, "forces turn with the frame", "forces depend on how the frame lies")
    return checks


def asymmetry(value: Estimate) -> Check:
    """Asymmetry of the Jacobian of the forces, relative: zero for the gradient of an energy."""
    fine = value.value < SYMMETRIC
    words = "the forces are a gradient" if fine else "no energy has these forces: run with a thermostat, or accelerate"
    text = f"{value.value:.2e} ± {value.error:.0e}"
    return _check("Jacobian asymmetry", value.value, text, fine, words, value.error)


def drift(trace: EnergyTrace, energy: str) -> list[Check]:
    """Drift of kinetic energy plus this potential energy, and of the integrator alone."""
    total, integrator = trace.drift(), trace.integrator_drift()
    of = f"kinetic + {energy}, {trace.times_ps[-1]:g} ps, per degree of freedom"
    return [
        _drift("energy drift at constant energy", total, of),
        _drift("of it the integrator's", integrator, "kinetic energy - work; shorter time steps take it away"),
    ]


def _drift(name: str, value: Estimate, of: str) -> Check:
    text, unsure = f"{value.format(1)} K/ns", abs(value.value) <= 2 * value.error and value.error >= DRIFT_K_PER_NS
    if unsure:
        words = f"{of}; not known from a run this short: give a longer one (--constant-energy)"
        return Check(name, value.value, value.error, "K/ns", text, NOT_MEASURED, words)
    return _check(name, value.value, text, abs(value.value) < DRIFT_K_PER_NS, of, value.error, "K/ns")


def equipartition(run: StabilityRun, target: float) -> list[Check]:
    """The temperature of each element beside the thermostat's."""
    found = run.temperatures()
    if not found:
        return [not_measured("temperature per element", "the run was too short")]
    checks: list[Check] = []
    for element, temperature in found.items():
        off = temperature.value / target - 1
        fine = abs(off) < max(TEMPERATURE, min(2 * temperature.error / target, NOISE))
        words = f"{100 * off:+.1f} % of {target:g} K"
        words += "" if temperature.error < TEMPERATURE * target else ", within the noise of a short run" if fine else ""
        name, figure = f"temperature of {element}", f"{temperature.format(1)} K"
        checks.append(_check(name, temperature.value, figure, fine, words, temperature.error, "K"))
    return checks


def stability(run: StabilityRun) -> Check:
    """The part of a run with a thermostat that was reached."""
    part = run.reached_ps / run.wanted_ps
    figure = f"{100 * part:.0f} % of {run.wanted_ps:g} ps"
    words = f"blew up after {run.reached_ps:g} ps: {run.failure}" if run.failure else "no blow-up"
    return _check("stability", part, figure, not run.failure, words)


def extrapolation(where: str, scores: np.ndarray, expected: float) -> Check:
    """The fraction of atoms whose neighbourhood lies outside the training data.

    Args:
        scores: (atoms,) of `training_distribution.scores`; 1 is the border.
        expected: that fraction of the training atoms.
    """
    outside = float((scores > 1).mean())
    fine = outside <= OUTSIDE_FACTOR * expected
    words = f"of the training atoms {100 * expected:.2g} % are; farthest at {scores.max():.1f} times the border"
    return _check(f"atoms outside training, {where}", outside, f"{100 * outside:.2f} %", fine, words)


def replication(difference: float) -> Check:
    """Forces of copies of a frame beside copies of its forces, relative, as `replication_error` gives them."""
    words = "forces of 8 copies of a frame are 8 copies of its forces" if difference < BALANCE else "the box is seen"
    return _check("copies of a frame", difference, f"{difference:.1e}", difference < BALANCE, words)


def sizes(results: Sequence[SizeResult]) -> list[Check]:
    """The error at each size beside that of the smallest that was measured."""
    measured = [result.errors.relative_error for result in results if result.errors is not None]
    checks: list[Check] = []
    for result in results:
        name = f"error, {result.num_molecules} molecules ({result.edge_nm:.1f} nm)"
        if result.errors is None:
            checks.append(blown_up(name, result.failure))
            continue
        error = result.errors.relative_error
        ratio = error / measured[0] - 1
        words = f"{100 * ratio:+.1f} % of the smallest box's; MAE {result.errors.mae:.2f} meV/A, "
        words += f"cosine {result.errors.mean_cosine:.5f}"
        checks.append(_check(name, error, f"{100 * error:.2f} %", abs(ratio) <= FLAT, words))
    return checks
