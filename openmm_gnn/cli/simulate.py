"""Run a system with a network's forces, or its own: trajectory, log and checkpoints in one directory.

With --accelerate the network takes the place of the expensive forces between two of their evaluations, one per
time step; the averages and the energies logged are those of the system's own forces. --thermostat isokinetic takes
longer steps, and --thermostat monte-carlo is exact at any step; times mean nothing in either.

With --bias a learned CV is driven over its whole range; OUT/bias has what is needed to weigh the frames, and
`analyze` does so. The energies logged are without the bias. With --bias-walkers several runs build one bias together.

Killed, it goes on where it was when the same command is given again; a larger --steps extends it. At a NaN, a broken
bond or twice the temperature that is asked for, the run stops, names step and atom, and saves the last good frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.base.errors import SettingsError
from openmm_gnn.cli.options import Nested, Result, RunCommand
from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
from openmm_gnn.md.systems.structure_files import SystemFiles
from openmm_gnn.runs.settings import BiasSettings, FeatureSettings

_NAMES = {name: name for name in ("context", "window", "replace")}
_LIVE = Nested(FeatureSettings, prefix="features", names=_NAMES, without=("encoder", "dtype"))


@dataclass(frozen=True, kw_only=True)
class Simulate(RunCommand):
    system: tyro.conf.Positional[str]
    """Name of a system (argon, amoeba-water, chignolin), a serialised System (.xml), the directory of one, or a
    structure (.pdb, .cif) with --force-field."""
    out: Path
    """Directory of the run."""
    model: str | None = None
    """Network: a shipped name (gamd-argon), a bundle (.safetensors) or an exported module (.pt). Default: the system's
    own forces."""
    files: SystemFiles
    start: Path | None = None
    """Directory of another run of this system; this run begins with its last frame."""
    settings: RunSettings
    features: str | None = None
    """Encoder whose features of every residue are stored during the run, in OUT/features. Default: no features."""
    live: Annotated[Callable[..., FeatureSettings], _LIVE]
    bias: str | None = None
    """Learned CV along which the production is biased: a file by `analyze`, or a shipped name (alanine-dipeptide).
    Default: no bias."""
    bias_settings: Annotated[BiasSettings, Nested(prefix="bias")]
    compute: ComputeSettings
    relearn: bool = False
    """Store the frames of an accelerated run with the forces that its network stands for, in OUT/labels, for the next
    training; they cost no evaluation."""

    def __post_init__(self) -> None:
        if self.settings.accelerate and self.model is None:
            raise SettingsError(self, "model", "give the network that accelerates")
        if self.relearn and not self.settings.accelerate:
            raise SettingsError(self, "relearn", "it is for accelerated runs: give accelerate too")

    def run(self) -> Result:
        from openmm_gnn.networks.weights import load_model
        from openmm_gnn.runs.directory import starting_from
        from openmm_gnn.runs.simulate import simulate

        system = self.files.load(self.system)
        result = simulate(
            system if self.start is None else starting_from(system, self.start),
            self.out,
            self.settings,
            model=None if self.model is None else load_model(self.model),
            forces_name="" if self.model is None else Path(self.model).stem,
            compute=self.compute,
            progress=self.progress,
            features=None if self.features is None else self.live(encoder=self.features),
            bias_cv=self.bias,
            bias=self.bias_settings,
            relearn=self.relearn,
        )
        speed = f", {result.ns_per_day:.1f} ns/day" if result.ns_per_day else ", complete already"
        taken = "" if result.acceptance is None else f", {100 * result.acceptance:.0f} % of the proposals taken"
        trajectory, frames = result.directory.trajectory, result.num_frames
        said = [f"{frames} frames in {trajectory}{speed}{taken}"]
        if result.network_error is not None:
            usual = "" if result.held_out_error is None else f"; on held-out frames by {result.held_out_error:.3g}"
            said.append(f"The network's forces were off by {result.network_error:.3g} meV/A{usual}")
        if self.relearn:
            said.append(f"Labels for the next training: {result.directory.path / 'labels'}")
        after = "analyze {} --lag PS --out slow" if self.features or self.bias else "compare {} REFERENCE"
        return Result(
            *said,
            next=f"`openmm-gnn {after.format(self.out)}`",
            trajectory=trajectory,
            frames=frames,
            ns_per_day=result.ns_per_day or None,
            acceptance=result.acceptance,
            network_error_mev_a=result.network_error,
            held_out_error_mev_a=result.held_out_error,
        )
