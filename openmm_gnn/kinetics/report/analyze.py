"""The analysis of runs: slow variables are learned, tested, drawn and written; complete stages are kept on disk.

report.html          everything on one page
analysis.json        the numbers
cv.safetensors       the slow variables with their encoder, for `openmm-gnn simulate --bias`
slow_variables/      RUN.npz: steps, times_ps, slow_variables (frames, K), states (frames,)
states/              state-N.pdb: the frames closest to the centre of each state
figures/             PNG
settings.json        the settings and the frames; the same command resumes from what is complete
training/            networks and logs of every seed
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import flattened, locked, write_arrays, write_json
from openmm_gnn.kinetics.data import AnalysedRun, AnalysisData, find_runs, lag_frames, read_data
from openmm_gnn.kinetics.free_energy import bias_drift, free_energy_line, free_energy_map
from openmm_gnn.kinetics.markov import MarkovModel, MarkovSettings, estimate_markov_model
from openmm_gnn.kinetics.methods.interface import Learned, learn, method_file
from openmm_gnn.kinetics.report.figures import draw_all
from openmm_gnn.kinetics.report.page import write_report
from openmm_gnn.kinetics.report.representative_frames import closest_frames, write_state
from openmm_gnn.kinetics.report.results import (
    Analysis,
    UnconnectedPart,
    all_warnings,
    drift_warnings,
    unconnected_parts,
)
from openmm_gnn.kinetics.report.saliency import residue_attention, residue_saliency
from openmm_gnn.kinetics.settings import AnalysisSettings, Method
from openmm_gnn.kinetics.vamp import LagScores, held_out_slowness, score_lags

if TYPE_CHECKING:
    from rich.console import Console

    from openmm_gnn.features.learned_cv import Slowness

MODELS_PER_STATE = 5
MOST_CLUSTERS, FRAMES_PER_CLUSTER = 100, 20
SAMPLES, QUICK_SAMPLES = 100, 20
MOST_TIMESCALES = 5
MOST_BINS, FEWEST_BINS, FRAMES_PER_BIN = 60, 8, 20
"""Bins of a free energy along each variable; fewer where frames are few, or the bins of a line would be noise."""
_SETTINGS = "settings.json"


def analyze_runs(
    runs: Sequence[Path],
    out: Path,
    settings: AnalysisSettings,
    validation: Sequence[Path] = (),
    test: Sequence[Path] = (),
    encoder: str | None = None,
    progress: bool = True,
) -> Analysis:
    """Learn the slow variables of runs, test them, and write the report with everything it shows.

    Args:
        runs: directories of `simulate --features` or `featurize`, or directories with several of them.
        out: directory of the report, the figures and the slow variables: a new one, or that of an analysis of the same
            runs with the same settings, which is resumed.
        settings: everything else that decides the result.
        validation: held-out runs, which end the training and choose the seed; without any, the last third of the runs,
            or of the time, is held out.
        test: runs that choose nothing, so that their scores are cross-validated; without any, the validation frames
            are scored.
        encoder: name or file of the encoder that made the features, where it is no longer at the path in the store.
        progress: show progress bars.
    Raises:
        DataError: naming the run and the remedy, before anything is learned.
        SpecError: naming each setting that differs from those of the analysis in `out`.
    """
    from rich.console import Console

    console = Console(stderr=True) if progress else None
    with locked(out):
        training, held_out, apart = _find_runs((runs, validation, test), out)
        temperature = _temperature((*training, *held_out, *apart), settings)
        with _stage(console, "Reading and checking the runs"):
            data = read_data(training, held_out, settings.lag, apart)
        lags = lag_frames(settings, data.interval_ps, data.shortest)
        _record_settings(out, settings, data)
        learned = learn(settings, data, out / "training", progress)
        with _stage(console, "Slow variables of every frame"):
            variables = _along(learned, data, out / "training" / f"{settings.method.value}-variables.npz")
        with _stage(console, "Scores at several lags"):
            scores = [score_lags(method_file(settings.method).TITLE, variables, data, lags)]
            if settings.method is not Method.TICA:
                try:  # the baseline must not cost the report
                    linear = learn(dataclasses.replace(settings, method=Method.TICA), data, out / "training", False)
                    along = _along(linear, data, out / "training" / "tica-variables.npz")
                    scores.append(score_lags("TICA of the features", along, data, lags))
                except DataError as error:
                    learned.warnings.append(f"TICA of the features, for comparison, was left out: {error}.")
        with _stage(console, "Markov model"):
            markov, states, parts = markov_model(learned, variables, data, settings, lags)
        with _stage(console, "Frames, saliency, figures"):
            return _report(settings, data, temperature, learned, variables, scores, markov, states, parts, encoder, out)


def markov_model(
    learned: Learned,
    variables: Sequence[np.ndarray],
    data: AnalysisData,
    settings: AnalysisSettings,
    lags: Sequence[int],
) -> tuple[MarkovModel, list[np.ndarray], list[UnconnectedPart]]:
    """Estimate a Markov model of all runs, at the lag of the training.

    Args:
        variables: (frames, K) for each run; states that were learned with them take their place.
        lags: lags of the implied timescales, frames.
    Returns:
        The model, (frames,) states of each run, -1 for none, and what is not connected with them.
    Raises:
        DataError: if the runs are too short.
    """
    series: list[np.ndarray] = list(variables)
    num_states = settings.wanted_states
    if learned.states is not None:
        series = list(learned.states)
        num_states = 1 + max(int(own.max()) for own in series)
    pieces = [(run, rows) for run, trajectory in enumerate(data.trajectories) for rows in trajectory.pieces]
    frames = sum(map(len, series))
    model = estimate_markov_model(
        [series[run][rows] for run, rows in pieces],
        data.in_frames(settings.lag),
        data.interval_ps,
        MarkovSettings(
            num_clusters=max(2 * settings.wanted_states, min(MOST_CLUSTERS, frames // FRAMES_PER_CLUSTER)),
            num_states=num_states,
            num_timescales=min(MOST_TIMESCALES, max(num_states - 1, settings.outputs + 1)),
            lags=tuple(lags),
            samples=QUICK_SAMPLES if settings.quick else SAMPLES,
        ),
    )
    states, parts = ([np.full(len(values), -1) for values in series] for _ in range(2))
    for (run, rows), own, part in zip(pieces, model.states, model.parts, strict=True):
        states[run][rows], parts[run][rows] = own, part
    return model, states, unconnected_parts(parts, [run.name for run in data.runs])


def _report(
    settings: AnalysisSettings,
    data: AnalysisData,
    temperature: float,
    learned: Learned,
    variables: list[np.ndarray],
    scores: list[LagScores],
    markov: MarkovModel,
    states: list[np.ndarray],
    unconnected: list[UnconnectedPart],
    encoder: str | None,
    out: Path,
) -> Analysis:
    """Compute what follows from variables and states, and write all of it."""
    files = {"this report": "report.html", "the numbers": "analysis.json"}
    (out / "slow_variables").mkdir(parents=True, exist_ok=True)
    for run, values, own in zip(data.runs, variables, states, strict=True):
        arrays = {"steps": run.steps, "times_ps": run.times_ps, "slow_variables": values, "states": own}
        write_arrays(out / "slow_variables" / f"{run.name}.npz", **arrays)
    files["slow variables and states of every frame"] = "slow_variables/"
    representatives = closest_frames(data.runs, variables, states, markov.num_states, MODELS_PER_STATE)
    if any(representatives):
        for state, frames in enumerate(representatives, start=1):
            if frames:
                write_state(frames, data.runs, out / "states" / f"state-{state}.pdb")
        files["structures of the states"] = "states/"
    slowness = held_out_slowness(variables, data, data.in_frames(settings.lag))
    notes = _write_cv(settings, data, learned, variables, slowness, encoder, out / "cv.safetensors")
    if not notes:
        files["the slow variables, for a bias"] = "cv.safetensors"
        notes = [*_jumps(data), *_not_slow(slowness)]
    by_variable = [[own[:, k] for own in variables] for k in range(variables[0].shape[1])]
    weights, num_frames = data.log_weights, sum(map(len, variables))
    bins = min(MOST_BINS, max(FEWEST_BINS, num_frames // FRAMES_PER_BIN))
    map_bins = min(MOST_BINS, max(FEWEST_BINS, round(num_frames**0.5 / 2)))
    surface = None
    if len(by_variable) > 1:
        surface = free_energy_map(by_variable[0], by_variable[1], temperature, weights, map_bins)
    analysis = Analysis(
        system=_system(data.runs),
        settings=settings,
        inputs=_inputs(data),
        temperature=temperature,
        weighted=weights is not None,
        learned=learned,
        lag_scores=scores,
        markov=markov,
        variables=variables,
        states=states,
        unconnected=unconnected,
        representatives=representatives,
        lines=[free_energy_line(values, temperature, weights, bins) for values in by_variable],
        surface=surface,
        saliency=residue_saliency(learned, data, states, markov.num_states),
        attention=residue_attention(learned, data),
        files=files,
    )
    analysis.warnings.extend([*all_warnings(analysis, data.log_weights), *notes, *drift_warnings(_drifts(data))])
    figures = draw_all(analysis, data, out / "figures")
    files["figures"] = "figures/"
    analysis.save(out / "analysis.json")
    write_report(analysis, figures, out / "report.html")
    return analysis


def _along(learned: Learned, data: AnalysisData, file: Path) -> list[np.ndarray]:
    """(frames, K) slow variables of each run, from the file where they are complete."""
    if not file.is_file():
        write_arrays(file, **{str(number): learned.along(one) for number, one in enumerate(data.trajectories)})
    with np.load(file) as stored:
        return [stored[str(number)] for number in range(len(data.trajectories))]


def _find_runs(groups: Sequence[Sequence[Path]], out: Path) -> list[list[AnalysedRun]]:
    """The runs of each group, with as many frames as an analysis in `out` has begun with."""
    stored = _stored_settings(out)
    counts = {run["name"]: int(run["frames"]) for run in stored["runs"]} if stored else None
    together = iter(find_runs([path for group in groups for path in group], counts))
    return [list(itertools.islice(together, len(find_runs(group)))) for group in groups]


def _stored_settings(out: Path) -> dict[str, Any] | None:
    try:
        return json.loads((out / _SETTINGS).read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise DataError(f"{out / _SETTINGS} is damaged ({error}): give another --out") from error


def _inputs(data: AnalysisData) -> list[dict[str, Any]]:
    return [{**run.fingerprint(), "role": role} for run, role in zip(data.runs, data.roles, strict=True)]


def _record_settings(out: Path, settings: AnalysisSettings, data: AnalysisData) -> None:
    """Write settings and inputs, or compare them with those that were written.

    Raises:
        SpecError: naming the differences.
    """
    document = {"settings": settings.to_json(), "runs": _inputs(data)}
    stored = _stored_settings(out)
    if stored is None:
        write_json(out / _SETTINGS, document, indent=1)
        return
    before, after = _flat(stored), _flat(json.loads(json.dumps(document)))
    differences = [
        f"{name}: {before.get(name)!r} before, {after.get(name)!r} now"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise SpecError(f"{out} holds another analysis ({shown}): give the same to go on, or another --out")


def _flat(document: dict[str, Any]) -> dict[str, Any]:
    runs = {run["name"]: run for run in document["runs"]}
    return flattened({**document, "runs": runs})


def _temperature(runs: Sequence[AnalysedRun], settings: AnalysisSettings) -> float:
    """The temperature of all runs, K.

    Raises:
        DataError: if it is not known, or the runs have several.
    """
    if settings.temperature is not None:
        return settings.temperature
    known = {run.name: run.temperature for run in runs}
    unknown = [run for run in runs if known[run.name] is None]
    if unknown:
        raise DataError(
            f"the temperature of {unknown[0].store.path} is not known, no run.json lies there: give --temperature, in K"
        )
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {value:g} K" for name, value in known.items())
        raise DataError(f"the runs have several temperatures ({listed}): analyse them apart")
    return float(next(value for value in known.values() if value is not None))


def _write_cv(
    settings: AnalysisSettings,
    data: AnalysisData,
    learned: Learned,
    variables: Sequence[np.ndarray],
    slowness: Slowness,
    encoder: str | None,
    path: Path,
) -> list[str]:
    """Write the bundle with which a simulation can be biased; the reasons, if there is none."""
    from openmm_gnn.features.learned_cv import LearnedCV, OutputRanges, save_learned_cv
    from openmm_gnn.networks.weights import load_encoder

    network = learned.cv_network
    if network is None:
        return ["There is no cv.safetensors: a bias needs a network, so use --method vampnet or spib."]
    name = encoder or data.runs[0].store.meta["description"]["encoder"]["name"]
    try:
        spec = data.runs[0].store.meta["description"]["encoder"]["spec"]["spec"]
        made_by = load_encoder(name, spec["neighbor_rule"], spec.get("smooth", False))
        metadata = {"settings": settings.to_json(), "runs": [run.fingerprint() for run in data.runs]}
        cv = LearnedCV.from_store(data.runs[0].store, network, made_by, metadata)
        cv = dataclasses.replace(cv, ranges=OutputRanges.of_series(variables), slowness=slowness)
        save_learned_cv(cv, path)
    except (FileNotFoundError, DataError, SpecError) as error:
        return [f"There is no cv.safetensors: {error}. Give the encoder of the features with --encoder."]
    return []


def _jumps(data: AnalysisData) -> list[str]:
    """What a bias along the variables will be refused for, if it will be."""
    from openmm_gnn.base.specs.codec import spec_from_json
    from openmm_gnn.base.specs.encoder import EncoderSpec
    from openmm_gnn.features.learned_cv import jumps_of

    spec = data.runs[0].store.meta["description"]["encoder"]["spec"]
    words = jumps_of(spec_from_json(json.dumps(spec), EncoderSpec))
    remedy = "make the features again in the form that is now the default, and learn from those"
    return [f"The slow variables jump, and a bias along them is refused: {words}; {remedy}."] if words else []


def _not_slow(slowness: Slowness) -> list[str]:
    """The variables that a bias leaves out, since they are not slow in held-out frames."""
    remedy = "a bias leaves it out. Run longer, choose a shorter lag, or fewer outputs"
    fast = [output for output in range(len(slowness.correlations)) if output not in slowness.slow]
    return [f"The data are too few for all outputs: {slowness.words_of(output)}; {remedy}." for output in fast]


def _drifts(data: AnalysisData) -> dict[str, np.ndarray]:
    """What the bias of each run of metadynamics still changed by, (frames,) kJ/mol, by the run's name."""
    drifts = {}
    for run in data.runs if data.log_weights is not None else ():
        assert run.directory is not None
        drift = bias_drift(run.directory.path, run.steps)
        if drift is not None:
            drifts[run.name] = drift
    return drifts


def _system(runs: Sequence[AnalysedRun]) -> str:
    """The name of the system in run.json, or that of the directory."""
    run = runs[0]
    if run.directory is not None and run.directory.exists:
        return str(run.directory.identity()["system"]["name"])
    return run.store.path.resolve().name


@contextmanager
def _stage(console: Console | None, words: str) -> Iterator[None]:
    if console is None:
        yield
        return
    with console.status(f"{words} ..."):
        yield
    console.print(f"[green]✓[/] {words}", highlight=False)
