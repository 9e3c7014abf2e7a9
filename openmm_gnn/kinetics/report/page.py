"""The report of an analysis: figures, tables and warnings on one page that is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.figures import Page
from openmm_gnn.base.files import flattened
from openmm_gnn.kinetics.methods.interface import method_file
from openmm_gnn.kinetics.report.results import CROSS_VALIDATED, Analysis, duration, variable_name

MOST_RESIDUES = 15
"""Rows of the table of saliencies."""


def write_report(analysis: Analysis, figures: Mapping[str, Path], path: Path) -> Path:
    """Write the page.

    Args:
        figures: PNG files by what they show: scores, timescales, prediction, free_energy, time_series, states,
            saliency, attention; those that are missing are left out.
    """
    page = Page(f"Slow variables of {analysis.system}", _lead(analysis))
    page.cards(_cards(analysis))
    if analysis.warnings:
        page.section("Warnings", "warnings")
        page.points(analysis.warnings)
    else:
        page.section("No warnings", "fine")
        page.words(
            "All frames are connected, states were entered often enough, timescales have converged, and seeds agree."
        )
    _scores(page, analysis, figures)
    _timescales(page, analysis, figures)
    _landscape(page, analysis, figures)
    _states(page, analysis, figures)
    _residues(page, analysis, figures)
    _next_steps(page, analysis)
    _origins(page, analysis)
    return page.write(path)


def _lead(analysis: Analysis) -> str:
    method = method_file(analysis.settings.method).TITLE
    count = len(analysis.inputs)
    runs = f"{count} run{'s' if count > 1 else ''}, {analysis.total_ns:.4g} ns together, {analysis.temperature:g} K"
    weighted = "; biased runs are reweighted" if analysis.weighted else ""
    written = datetime.now().astimezone().strftime("%d %B %Y, %H:%M")
    return f"{method} with a lag of {analysis.settings.lag:g} ps on {runs}{weighted}. Written {written}."


def _cards(analysis: Analysis) -> list[tuple[str, str]]:
    cards = []
    score, spread = analysis.score
    name = f"VAMP-2, {analysis.score_name}, at most {1 + analysis.settings.outputs}"
    cards.append((_with_error(score, spread), name))
    slowest, low, high = analysis.slowest_ps
    if np.isfinite(slowest):
        interval = f", {duration(low)} to {duration(high)}" if np.isfinite(low + high) else ""
        cards.append((duration(slowest), f"slowest timescale{interval}"))
    cards.append((str(analysis.markov.num_states), "states"))
    cards.append((f"{sum(analysis.markov.visits)}", "changes of state in all runs"))
    return cards


def _scores(page: Page, analysis: Analysis, figures: Mapping[str, Path]) -> None:
    page.section("How much slow motion the variables hold")
    scored = (
        "The scored frames chose nothing: the scores are cross-validated."
        if analysis.score_name == CROSS_VALIDATED
        else "The validation frames that are scored also ended the training and chose the seed, so the scores are too "
        "high by chance; runs that are given with --test have cross-validated ones."
    )
    page.words(
        "VAMP-2 is the sum of the squared correlations of the variables with themselves one lag later; 1 is nothing "
        f"slow, each variable adds at most 1. Their linear map is fitted to the training frames. {scored}"
    )
    _figure(page, figures, "scores", "VAMP-2 scores against epoch and lag")
    if analysis.learned.seeds:
        page.table(
            ("seed", "training", "validation", "best epoch", "epochs", ""),
            [
                (
                    *(str(seed.seed), f"{seed.training:.4f}", f"{seed.validation:.4f}", f"{seed.best_epoch:g}"),
                    *(str(seed.num_epochs), "used" if seed.seed == analysis.learned.chosen_seed else ""),
                )
                for seed in analysis.learned.seeds
            ],
        )
    lags = analysis.lag_scores[0].lags_ps
    page.table(
        ("VAMP-2 at a lag of", *(f"{lag:g} ps" for lag in lags)),
        [
            (row.name, *(_with_error(score, spread) for score, spread in zip(row.scores, row.spread, strict=True)))
            for row in analysis.lag_scores
        ],
    )


def _timescales(page: Page, analysis: Analysis, figures: Mapping[str, Path]) -> None:
    page.section("Timescales")
    page.words(
        "Implied timescales of a Markov model on the slow variables. Where the lag is long enough, they do not depend "
        "on it; in the grey region a process decays within one lag."
    )
    _figure(page, figures, "timescales", "Implied timescales against lag")
    lags, times = analysis.markov.implied_lags_ps, analysis.markov.implied_timescales_ps
    page.table(
        ("lag", *(f"timescale {k + 1}" for k in range(times.value.shape[1]))),
        [
            (f"{lag:g} ps", *(_between(*numbers) for numbers in zip(values, low, high, strict=True)))
            for lag, values, low, high in zip(lags, times.value, times.low, times.high, strict=True)
        ],
    )
    if "prediction" in figures:
        page.words(
            "The Chapman-Kolmogorov test compares the predictions of the model at its lag for longer times with "
            "estimates at those times."
        )
    _figure(page, figures, "prediction", "Chapman-Kolmogorov test")


def _landscape(page: Page, analysis: Analysis, figures: Mapping[str, Path]) -> None:
    page.section("Free energy and time series")
    page.words(
        "The variables have mean 0 and standard deviation 1 over the training frames. The band is one sigma, from "
        "resampling blocks of the runs." + (" Frames of biased runs have their weights." if analysis.weighted else "")
    )
    _figure(page, figures, "free_energy", "Free energies along and over the slow variables")
    _figure(page, figures, "time_series", "Slow variables along the runs")


def _states(page: Page, analysis: Analysis, figures: Mapping[str, Path]) -> None:
    page.section("States")
    _figure(page, figures, "states", "Where the states are, and their populations")
    markov = analysis.markov
    populations, passages, count = markov.populations, markov.passage_times_ps, markov.num_states
    frames, ends = analysis.state_frames, (passages.value, passages.low, passages.high)
    page.table(
        ("state", "population (%)", f"{100 * markov.confidence:.0f} % interval", "frames", "entered"),
        [
            (
                str(state + 1),
                f"{100 * populations.value[state]:.3g}",
                f"{100 * populations.low[state]:.3g} to {100 * populations.high[state]:.3g}"
                if np.isfinite(populations.low[state])
                else "-",
                f"{frames[state]:,}",
                str(markov.visits[state]),
            )
            for state in range(count)
        ]
        + [
            (part.name, "not connected", "-", f"{part.frames:,} ({100 * part.share:.3g} %)", "-")
            for part in analysis.unconnected
        ],
    )
    if analysis.unconnected:
        page.words(
            f"Populations are shares of the connected part, which has {100 * markov.connected_share:.3g} % of the "
            "frames. No run goes from there to a part named U and back; its frames are grey in the figures."
        )
    page.words("Mean first-passage times, from the state of the row to that of the column, and their intervals:")
    page.table(
        ("from", *(f"to {state + 1}" for state in range(count))),
        [
            (
                str(i + 1),
                *("" if i == j else _between(*(one[i, j] for one in ends)) for j in range(count)),
            )
            for i in range(count)
        ],
    )  # fmt: skip
    rows = [
        (str(state + 1), frame.run, f"{frame.step:,}", str(frame.frame), f"{frame.distance:.3f}")
        for state, chosen in enumerate(analysis.representatives)
        for frame in chosen
    ]
    if rows:
        page.words("Frames closest to the centre of each state, in the order of the models in states/state-N.pdb:")
        page.table(("state", "run", "step", "frame of trajectory.dcd", "distance (sd)"), rows)
    else:
        page.words("No trajectory lies beside the features, so no representative frames were written.")


def _residues(page: Page, analysis: Analysis, figures: Mapping[str, Path]) -> None:
    page.section("Residues")
    page.words(
        "Saliency: the change of a slow variable, in standard deviations, when the features of a residue change by "
        f"one of theirs; from the gradient, mean over {analysis.saliency.num_frames:,} frames. "
        "Shares add up to 100 % for each variable."
    )
    _figure(page, figures, "saliency", "Saliency of each residue")
    overall = analysis.saliency.overall
    order = np.argsort(-np.linalg.norm(overall, axis=0))[:MOST_RESIDUES]
    page.table(
        ("residue", *(variable_name(k) for k in range(len(overall)))),
        [(analysis.saliency.labels[token], *(f"{value:.3f}" for value in overall[:, token])) for token in order],
    )
    if "attention" in figures:
        page.words("Attention of each residue (row) to each other residue (column) inside the network.")
        _figure(page, figures, "attention", "Attention weights")


def _next_steps(page: Page, analysis: Analysis) -> None:
    page.section("Files, and what to do next")
    page.table(("file", "what it is"), [(name, what) for what, name in analysis.files.items()], numbers=False)
    cv = next((name for name in analysis.files.values() if name.endswith("cv.safetensors")), None)
    if cv is not None:
        page.words("The next simulation can be driven along the slow variables:")
        page.command(f"openmm-gnn simulate SYSTEM --bias {cv} --out biased")


def _origins(page: Page, analysis: Analysis) -> None:
    page.section("Settings and inputs")
    settings = flattened({name: _shown(value) for name, value in analysis.settings.to_json().items()})
    page.table(("setting", "value"), [(name, str(value)) for name, value in settings.items()], numbers=False)
    page.table(
        ("run", "role", "frames", "interval", "SHA-256 of the frames"),
        [
            (run["name"], run["role"], f"{run['frames']:,}", f"{run['interval_ps']:g} ps", run["frames_hash"][:16])
            for run in analysis.inputs
        ],
        numbers=False,
    )
    one = analysis.inputs[0]
    page.table(
        ("model", "SHA-256"),
        [(f"encoder {one['encoder']}", one["encoder_hash"]), ("topology", one["topology_hash"])],
        numbers=False,
    )


def _figure(page: Page, figures: Mapping[str, Path], name: str, what: str) -> None:
    if name in figures:
        page.figure(figures[name], what)


def _shown(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return value


def _with_error(value: float, error: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3f} ± {error:.3f}" if np.isfinite(error) else f"{value:.3f}"


def _between(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "-"
    return duration(value) + (f" ({duration(low)} to {duration(high)})" if np.isfinite(low + high) else "")
