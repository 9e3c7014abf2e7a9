"""`openmm-gnn analyze`: slow variables, states and kinetics of runs, with figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def analyze(
    runs: Annotated[
        list[Path],
        typer.Argument(help="What `simulate --features` or `featurize` wrote; or directories with several of them."),
    ],
    lag: Annotated[float, typer.Option(help="ps between the two frames of a pair: longer than what is not wanted.")],
    out: Annotated[Path, typer.Option(help="Directory of the report, the figures and the slow variables.")],
    method: Annotated[
        str, typer.Option(help="vampnet (network, VAMP-2), spib (variables and states together) or tica (linear).")
    ] = "vampnet",
    outputs: Annotated[int, typer.Option(min=1, help="Slow variables.")] = 2,
    states: Annotated[int, typer.Option(min=0, help="Of the Markov model. Default: one more than outputs.")] = 0,
    validation: Annotated[
        list[Path] | None,
        typer.Option(help="A held-out run; may be given again. Default: the last third of the runs, or of the time."),
    ] = None,
    lags: Annotated[
        str | None, typer.Option(help="ps, such as 5,10,20,50: for scores and timescales. Default: around --lag.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Networks that are trained; the best on held-out data is used.")
    ] = 3,
    mixer: Annotated[
        str,
        typer.Option(
            help="How residues hear of each other: mlp, subformer, submixer, subgvp, subformer-gvp, submixer-gvp or "
            "equivariant-attention."
        ),
    ] = "submixer",
    window: Annotated[int, typer.Option(min=0, help="Residues merged into one token; 0: those of a chain.")] = 1,
    merging: Annotated[
        str | None, typer.Option(help="scalar or equivariant. Default: equivariant where --window is not 1.")
    ] = None,
    width: Annotated[int, typer.Option(min=2, help="Channels of the network.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="Of the mixer.")] = 2,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Of the network, in training.")] = 0.0,
    steps: Annotated[
        int, typer.Option(min=1, help="Of the training of each seed, at most; of SPIB between two looks at the states.")
    ] = 1000,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs per step.")] = 4000,
    temperature: Annotated[float | None, typer.Option(help="K. Default: that of run.json.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="That made the features, where it is no longer at the path in the store.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed, few steps: to see whether all works.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show progress bars.")] = True,
) -> None:
    """Find the slow variables of runs: scores, timescales, free energies, states with structures, saliency.

    OUT/report.html shows everything and needs nothing else; analysis.json has the numbers, slow_variables/ the
    variables of every frame, states/ structures, and cv.safetensors is ready for `openmm-gnn simulate --bias`. The same
    command again goes on where it was ended.
    """
    from rich.console import Console

    from openmm_gnn.kinetics.report.analyze import analyze_runs
    from openmm_gnn.kinetics.settings import AnalysisSettings

    settings = AnalysisSettings(
        lag=lag,
        method=method,  # type: ignore[arg-type]  # a spec takes the names of its choices
        outputs=outputs,
        states=states,
        seeds=seeds,
        lags=_lags(lags),
        mixer=mixer,  # type: ignore[arg-type]
        merging=merging,  # type: ignore[arg-type]
        window=window,
        width=width,
        layers=layers,
        dropout=dropout,
        steps=steps,
        batch_size=batch_size,
        temperature=temperature,
        quick=quick,
    )
    console = Console(stderr=True)
    try:
        analysis = analyze_runs(runs, out, settings, validation or (), encoder, progress)
    except KeyboardInterrupt:
        console.print(f"Stopped. The same command goes on from what is complete in {out}.")
        raise typer.Exit(130) from None
    for warning in analysis.warnings:
        console.print(f"Warning: {warning}", style="yellow", highlight=False)
    typer.echo(f"{out / 'report.html'}: {analysis.summary}")


def _lags(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of lags: give times in ps, such as 5,10,20,50", param_hint="--lags"
        ) from None
