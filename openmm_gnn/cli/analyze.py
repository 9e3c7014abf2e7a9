"""Find the slow variables of runs: scores, timescales, free energies, states with structures, saliency.

OUT/report.html shows everything and needs nothing else; analysis.json has the numbers, slow_variables/ the
variables of every frame, states/ structures, and cv.safetensors is ready for `openmm-gnn simulate --bias`. The same
command again goes on where it was ended.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Result, RunCommand
from openmm_gnn.kinetics.settings import AnalysisSettings


@dataclass(frozen=True, kw_only=True)
class Analyze(RunCommand):
    after_stop = "The same command goes on from what is complete."

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Directories that `simulate --features` or `featurize` wrote, or directories that hold several of them."""
    out: Path
    """Directory of the report, the figures and the slow variables."""
    validation: tuple[Path, ...] = ()
    """Directory of a run that ends the training and chooses the seed; may be given again. Default: the last third of
    the runs, or of the time of fewer than three."""
    test: tuple[Path, ...] = ()
    """Directory of a run that chooses nothing, for cross-validated scores; may be given again. Default: none, the
    validation runs are scored."""
    encoder: str | None = None
    """Encoder that made the features, if its file was moved. Default: the path that is stored with them."""
    settings: AnalysisSettings

    def run(self) -> Result:
        from openmm_gnn.kinetics.report.analyze import analyze_runs

        analysis = analyze_runs(
            self.runs, self.out, self.settings, self.validation, self.test, self.encoder, self.progress
        )
        for warning in analysis.warnings:
            print(f"Warning: {warning}", file=sys.stderr)
        cv = self.out / "cv.safetensors"
        after = f", then `openmm-gnn simulate SYSTEM --bias {cv} --out biased`" if cv.exists() else ""
        report = self.out / "report.html"
        return Result(f"{report}: {analysis.summary}", next=f"read it{after}", report=report, **analysis.to_json())
