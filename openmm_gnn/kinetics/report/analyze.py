"""From runs to a report: slow variables are learned, tested, drawn and written, each stage kept in the directory.

report.html          everything on one page
analysis.json        the numbers
cv.safetensors       the slow variables with their encoder, for `openmm-gnn simulate --bias`
slow_variables/      RUN.npz: steps, times_ps, slow_variables (frames, K), states (frames,)
states/              state-N.pdb: the frames closest to the centre of each state
figures/             PNG
settings.json        what was asked, and of which frames; the same command goes on from what is complete
training/            networks and logs of every seed
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import flattened, locked, write_arrays, write_json
from openmm_gnn.kinetics.report.data import SlowData, lag_frames, read_data
from openmm_gnn.kinetics.report.drawing import draw_all
from openmm_gnn.kinetics.report.kinetics import Kinetics, estimate_kinetics
from openmm_gnn.kinetics.report.lag_scores import score_lags
from openmm_gnn.kinetics.report.learn import Learned, learn
from openmm_gnn.kinetics.report.representative_frames import RepresentativeFrame, closest_frames, write_state
from openmm_gnn.kinetics.report.residues import residue_attention, residue_saliency
from openmm_gnn.kinetics.report.results import SlowAnalysis
from openmm_gnn.kinetics.report.runs import SlowRun, find_runs
from openmm_gnn.kinetics.report.warnings import all_warnings
from openmm_gnn.kinetics.settings import AnalysisSettings, Method

if TYPE_CHECKING:
    from rich.console import Console

MODELS_PER_STATE = 5
_SETTINGS = "settings.json"


def analyze_runs(
    runs: Sequence[Path],
    out: Path,
    settings: AnalysisSettings,
    validation: Sequence[Path] = (),
    encoder: str | None = None,
    progress: bool = True,
) -> SlowAnalysis:
    """Learn the slow variables of runs, test them, and write the report with everything it shows.

    Args:
        runs: directories of `simulate --features` or `featurize`, or directories with several of them.
        out: directory of the report, the figures and the slow variables: a new one, or that of an analysis of the same
            runs with the same settings, which is resumed.
        settings: everything else that decides the result.
        validation: held-out runs; without any, the last third of the runs, or of the time, is held out.
        encoder: name or file of the encoder that made the features, where it is no longer at the path in the store.
        progress: show progress bars.
    Raises:
        DataError: naming the run and the remedy, before anything is learned.
        SpecError: naming each setting that differs from those of the analysis in `out`.
    """
    from rich.console import Console

    console = Console(stderr=True) if progress else None
    with locked(out):
        training, held_out = _runs(runs, validation, out)
        temperature = _temperature((*training, *held_out), settings)
        with _stage(console, "Reading and checking the runs"):
            data = read_data(training, held_out, settings.lag)
        lags = lag_frames(settings, data.interval_ps, data.shortest)
        _remember(out, settings, data)
        learned = learn(settings, data, out / "training", progress)
        with _stage(console, "Slow variables of every frame"):
            variables = _along(learned, data, out / "training" / f"{settings.method.value}-variables.npz")
        with _stage(console, "Scores at several lags"):
            scores = [score_lags(_name(settings.method), variables, data, lags)]
            if settings.method is not Method.TICA:
                linear = learn(_linear(settings), data, out / "training", progress=False)
                along = _along(linear, data, out / "training" / "tica-variables.npz")
                scores.append(score_lags("TICA of the features", along, data, lags))
        with _stage(console, "Markov model"):
            kinetics = estimate_kinetics(learned, variables, data, settings, lags)
        with _stage(console, "Frames, saliency, figures"):
            return _report(settings, data, temperature, learned, variables, scores, kinetics, encoder, out)


def _report(
    settings: AnalysisSettings,
    data: SlowData,
    temperature: float,
    learned: Learned,
    variables: list[np.ndarray],
    scores: list[Any],
    kinetics: Kinetics,
    encoder: str | None,
    out: Path,
) -> SlowAnalysis:
    """All that follows from variables and states, written."""
    from openmm_gnn.kinetics.free_energy import free_energy_line, free_energy_map
    from openmm_gnn.kinetics.report.page import write_report

    files = {"this report": "report.html", "the numbers": "analysis.json"}
    _write_variables(data, variables, kinetics.states, out / "slow_variables")
    files["slow variables and states of every frame"] = "slow_variables/"
    count = len(kinetics.numbers.populations)
    representatives = closest_frames(data.runs, variables, kinetics.states, count, MODELS_PER_STATE)
    if any(representatives):
        _write_states(representatives, data.runs, out / "states")
        files["structures of the states"] = "states/"
    notes = _write_cv(settings, data, learned, variables, encoder, out / "cv.safetensors")
    if not notes:
        files["the slow variables, for a bias"] = "cv.safetensors"
    by_variable = [[own[:, k] for own in variables] for k in range(variables[0].shape[1])]
    weights = data.log_weights
    analysis = SlowAnalysis(
        system=_system(data.runs),
        settings=settings.to_json(),
        inputs=[{**run.fingerprint(), "role": role} for run, role in zip(data.runs, data.roles, strict=True)],
        temperature=temperature,
        weighted=weights is not None,
        seeds=learned.seeds,
        chosen_seed=learned.chosen_seed,
        curves=learned.curves,
        lag_scores=scores,
        timescales=kinetics.timescales,
        prediction=kinetics.prediction,
        states=kinetics.numbers,
        state_frames=[sum(int((own == state).sum()) for own in kinetics.states) for state in range(count)],
        state_visits=kinetics.visits,
        representatives=representatives,
        lines=[free_energy_line(values, temperature, weights) for values in by_variable],
        surface=free_energy_map(by_variable[0], by_variable[1], temperature, weights) if len(by_variable) > 1 else None,
        saliency=residue_saliency(learned, data, kinetics.states, count),
        attention=residue_attention(learned, data),
        files=files,
    )
    analysis.warnings.extend([*all_warnings(analysis, data.log_weights), *notes])
    figures = draw_all(analysis, data, variables, kinetics.states, out / "figures")
    files["figures"] = "figures/"
    analysis.save(out / "analysis.json")
    write_report(analysis, figures, out / "report.html")
    return analysis


def _along(learned: Learned, data: SlowData, file: Path) -> list[np.ndarray]:
    """(frames, K) slow variables of each run, from the file where they are complete."""
    if not file.is_file():
        values = {str(number): learned.along(trajectory) for number, trajectory in enumerate(data.trajectories)}
        write_arrays(file, **values)
    with np.load(file) as stored:
        return [stored[str(number)] for number in range(len(data.trajectories))]


def _runs(paths: Sequence[Path], held_out: Sequence[Path], out: Path) -> tuple[list[SlowRun], list[SlowRun]]:
    """The runs, with as many frames as an analysis in `out` has begun with."""
    stored = _stored(out)
    counts = {run["name"]: int(run["frames"]) for run in stored["runs"]} if stored else None
    count = len(find_runs(paths))
    together = find_runs([*paths, *held_out], counts)
    return together[:count], together[count:]


def _stored(out: Path) -> dict[str, Any] | None:
    try:
        return json.loads((out / _SETTINGS).read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise DataError(f"{out / _SETTINGS} is damaged ({error}): give another --out") from error


def _remember(out: Path, settings: AnalysisSettings, data: SlowData) -> None:
    """Write down what is analysed, or compare it with what was.

    Raises:
        SpecError: naming what differs.
    """
    runs = [{**run.fingerprint(), "role": role} for run, role in zip(data.runs, data.roles, strict=True)]
    document = {"settings": settings.to_json(), "runs": runs}
    now = json.loads(json.dumps(document))
    stored = _stored(out)
    if stored is None:
        write_json(out / _SETTINGS, document, indent=1)
        return
    before, after = _flat(stored), _flat(now)
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


def _temperature(runs: Sequence[SlowRun], settings: AnalysisSettings) -> float:
    """K.

    Raises:
        DataError: if it is not known, or not one.
    """
    if settings.temperature is not None:
        return settings.temperature
    known = {run.name: run.temperature for run in runs}
    unknown = [run for run in runs if known[run.name] is None]
    if unknown:
        raise DataError(f"the temperature of {unknown[0].store.path} is not known, no run.json lies there: give it (K)")
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {value:g} K" for name, value in known.items())
        raise DataError(f"the runs have several temperatures ({listed}): analyse them apart")
    return float(next(value for value in known.values() if value is not None))


def _linear(settings: AnalysisSettings) -> AnalysisSettings:
    return dataclasses.replace(settings, method=Method.TICA)


def _write_variables(
    data: SlowData, variables: Sequence[np.ndarray], states: Sequence[np.ndarray], folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for run, values, own in zip(data.runs, variables, states, strict=True):
        arrays = {"steps": run.steps, "times_ps": run.times_ps, "slow_variables": values, "states": own}
        write_arrays(folder / f"{run.name}.npz", **arrays)


def _write_states(
    representatives: Sequence[Sequence[RepresentativeFrame]], runs: Sequence[SlowRun], folder: Path
) -> None:
    for state, frames in enumerate(representatives, start=1):
        if frames:
            write_state(frames, runs, folder / f"state-{state}.pdb")


def _write_cv(
    settings: AnalysisSettings,
    data: SlowData,
    learned: Learned,
    variables: Sequence[np.ndarray],
    encoder: str | None,
    path: Path,
) -> list[str]:
    """Write the bundle with which a simulation can be biased; or say in words why there is none."""
    from openmm_gnn.features.learned_cv import LearnedCV, OutputRanges, save_learned_cv
    from openmm_gnn.networks.weights import load_encoder

    network = learned.cv_network
    if network is None:
        return ["There is no cv.safetensors: a bias needs a network, so use --method vampnet or spib."]
    name = encoder or data.runs[0].store.meta["description"]["encoder"]["name"]
    try:
        rule = data.runs[0].store.meta["description"]["encoder"]["spec"]["spec"]["neighbor_rule"]
        metadata = {"settings": settings.to_json(), "runs": [run.fingerprint() for run in data.runs]}
        cv = LearnedCV.from_store(data.runs[0].store, network, load_encoder(name, rule), metadata)
        save_learned_cv(dataclasses.replace(cv, ranges=OutputRanges.of_series(variables)), path)
    except (FileNotFoundError, DataError, SpecError) as error:
        return [f"There is no cv.safetensors: {error}. Give the encoder of the features with --encoder."]
    return []


def _system(runs: Sequence[SlowRun]) -> str:
    """The name in run.json, or that of the directory."""
    run = runs[0]
    if run.directory is not None and run.directory.exists:
        return str(run.directory.identity()["system"]["name"])
    return run.store.path.resolve().name


def _name(method: Method) -> str:
    from openmm_gnn.kinetics.report.page import METHOD_NAMES

    return METHOD_NAMES[method.value]


@contextmanager
def _stage(console: Console | None, words: str) -> Iterator[None]:
    if console is None:
        yield
        return
    with console.status(f"{words} ..."):
        yield
    console.print(f"[green]✓[/] {words}", highlight=False)
