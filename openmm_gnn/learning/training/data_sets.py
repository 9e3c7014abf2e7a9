"""Labelled trajectories as the data sets of a network: whole trajectories for training, validation and test."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.utils.data import ConcatDataset

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.force import ForceSpec
from openmm_gnn.data.labels.imported_labels import IMPORTED, ImportedLabels
from openmm_gnn.data.labels.trajectories import LabelledTrajectories, Trajectory, every_nth, in_open_space
from openmm_gnn.graph.topology_tables import no_partners, real_atoms, separation_table, species_table
from openmm_gnn.learning.settings import TrainingSettings, seed_ranges
from openmm_gnn.learning.training.frames import ForceErrorMeter, ForceErrors, FrameBatch, FrameDataset, predicted_forces
from openmm_gnn.learning.training.pair_fit import PairFit, evenly
from openmm_gnn.md.simulation_system import LabelledForces
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.pair_term import PairTerm
from openmm_gnn.networks.weights import load_model, make_model, save_network

if TYPE_CHECKING:
    from openmm import app


PAIR_FIT_FRAMES = 150
"""Frames that a pair term is fitted to: many, because the closest pairs, where the walls begin, are rare."""


class ForceMatchingSets(NamedTuple):
    """What a training run is made of."""

    spec: ForceSpec
    training: ConcatDataset[FrameBatch]
    validation: ConcatDataset[FrameBatch]
    pair_term: PairTerm | None


@dataclass(frozen=True)
class TopologyFrames:
    """Labelled trajectories of one topology."""

    topology: app.Topology
    trajectories: list[Trajectory]


def open_data(path: Path) -> LabelledTrajectories | ImportedLabels:
    """A directory that `openmm-gnn label` or `openmm-gnn import-labels` has written.

    Raises:
        DataError: if it is neither.
    """
    if path.is_file():
        raise DataError(f"{path} is a file: make a directory of it with `openmm-gnn import-labels {path} --out ...`")
    return ImportedLabels.open(path) if IMPORTED.is_at(path) else LabelledTrajectories.open(path)


def open_all(paths: Sequence[Path]) -> list[LabelledTrajectories | ImportedLabels]:
    """Open several directories; topologies, box sizes and temperatures may differ.

    Raises:
        DataError: if there is none, or their forces are not of the same kind.
    """
    if not paths:
        raise DataError("no data was given: give a directory written by `openmm-gnn label`")
    opened = [open_data(Path(path)) for path in paths]
    for other in opened[1:]:
        if forces_of(other) != forces_of(opened[0]):
            raise DataError(
                f"{other.path} is labelled with {forces_of(other).value} forces, {opened[0].path} with "
                f"{forces_of(opened[0]).value}: one network learns one of them, give data of one kind"
            )
    return opened


def forces_of(data: LabelledTrajectories | ImportedLabels) -> LabelledForces:
    """Which forces the frames carry."""
    return LabelledForces(data.meta["settings"].get("forces", LabelledForces.ALL))


def select_seeds(opened: Sequence[LabelledTrajectories | ImportedLabels], seeds: Sequence[int]) -> list[TopologyFrames]:
    """The trajectories of these seeds in any of the directories, by topology.

    Raises:
        DataError: if a seed is in none of them, or its trajectory is not complete.
    """
    known = sorted({seed for data in opened for seed in data.seeds})
    if missing := [seed for seed in seeds if seed not in known]:
        raise DataError(f"no data has seed {missing[0]}: it has the seeds {known}")
    chosen: list[TopologyFrames] = []
    for data in opened:
        wanted = [seed for seed in seeds if seed in data.seeds]
        if isinstance(data, LabelledTrajectories):
            runs: list[Trajectory] = [
                run if data.system.periodic else in_open_space(run.positions, run.forces)
                for run in (data.select(wanted) if wanted else [])
            ]
            chosen += [TopologyFrames(data.topology, runs)] if runs else []
            continue
        by_topology: dict[int, TopologyFrames] = {}
        for topology, block in data.select(wanted):
            frames = by_topology.setdefault(id(topology), TopologyFrames(topology, []))
            frames.trajectories.append(block if block.periodic else in_open_space(block.positions, block.forces))
        chosen += by_topology.values()
    return chosen


def force_matching_sets(
    paths: Sequence[Path], make_spec: Callable[..., ForceSpec], settings: TrainingSettings
) -> ForceMatchingSets:
    """The spec and the data sets of a training run.

    A pair term is fitted here; the force scale is that of what it leaves.

    Args:
        paths: directories written by `openmm-gnn label` or `import-labels`, of one topology or of several.
        make_spec: gives the spec for `elements` (atomic numbers of all training frames) and `force_scale` (kJ/mol/nm).
        settings: seeds of the trajectories, about how many frames to validate on, and the seed of the rotations.
    Raises:
        DataError: if a seed is missing, or bonds are asked for where none are known.
        TopologyError: if a validation frame has an element that no training frame has.
    """
    opened = open_all(paths)
    training, validation = (select_seeds(opened, seeds) for seeds in (settings.train_seeds, settings.validation_seeds))
    spec = make_spec(elements=elements_of(training), force_scale=force_scale_of(training))
    check_bonds_known(spec, opened)
    num_frames = sum(len(t.positions) for group in validation for t in group.trajectories)
    stride = max(1, num_frames // settings.validation_frames)
    thinned = [
        TopologyFrames(group.topology, [every_nth(t, stride) for t in group.trajectories]) for group in validation
    ]
    pair_term = make_model(spec).pair_term
    if pair_term is not None:
        fit_pair_term(pair_term, frame_dataset(spec, training))
        spec = dataclasses.replace(spec, force_scale=rest_scale(frame_dataset(spec, training, pair_term=pair_term)))
    return ForceMatchingSets(
        spec,
        frame_dataset(spec, training, not spec.is_covariant, settings.seed, pair_term),
        frame_dataset(spec, thinned, pair_term=pair_term),
        pair_term,
    )


def fit_pair_term(term: PairTerm, training: ConcatDataset[FrameBatch]) -> None:
    """Fit a pair term to some `PAIR_FIT_FRAMES` of these frames, evenly spread over each trajectory."""
    parts = [part for part in training.datasets if isinstance(part, FrameDataset)]
    fit = PairFit(term, parts[0].num_species)
    each = max(1, PAIR_FIT_FRAMES // sum(len(part.trajectories) for part in parts))
    for part in parts:
        assert part.partners is not None
        for start, end in pairwise(part.starts.tolist()):
            for frame in evenly(end - start, each):
                positions, forces, box = part.frame(start + frame)
                fit.add(positions, box, forces, part.species, part.partners)
    fit.solve()


def rest_scale(frames: ConcatDataset[FrameBatch]) -> float:
    """Root mean square of a force component that the pair term leaves, kJ/mol/nm, to six digits."""
    squares = []
    for index in evenly(len(frames), 20):
        frame = frames[index]
        assert frame.pair_forces is not None
        squares.append(float((frame.forces - frame.pair_forces).square().mean()))
    return float(f"{np.sqrt(np.mean(squares)):.6g}")


def partner_table(spec: ForceSpec, topology: app.Topology) -> torch.Tensor | None:
    """What a network needs of a topology to tell kinds of pairs apart, see `pair_types`; None if it does not."""
    if not spec.uses_types:
        return None
    return separation_table(topology) if spec.use_bonds else no_partners(len(real_atoms(topology)))


def elements_of(groups: Sequence[TopologyFrames]) -> tuple[int, ...]:
    """The atomic numbers of all topologies, each once, ascending; virtual sites have none."""
    atoms = [atom for group in groups for atom in group.topology.atoms()]
    return tuple(sorted({atom.element.atomic_number for atom in atoms if atom.element is not None}))


def force_scale_of(groups: Sequence[TopologyFrames]) -> float:
    """Root mean square of a force component of the real atoms over every tenth frame, kJ/mol/nm."""
    squares, count = 0.0, 0
    for group in groups:
        atoms = real_atoms(group.topology)
        for trajectory in group.trajectories:
            forces = np.asarray(trajectory.forces[::10], dtype=np.float64)[:, atoms]
            squares, count = squares + float(np.square(forces).sum()), count + forces.size
    return (squares / max(1, count)) ** 0.5


def check_bonds_known(spec: ForceSpec, opened: Sequence[LabelledTrajectories | ImportedLabels]) -> None:
    """DataError if the network tells bonded pairs apart but imported data came without bonds."""
    for data in opened:
        if spec.use_bonds and isinstance(data, ImportedLabels) and data.meta["topology"] is None:
            raise DataError(
                f"the network uses bonds, {data.path} has none: import it with --topology, or leave bonds out"
            )


def check_evaluable(spec: ForceSpec, data: LabelledTrajectories | ImportedLabels) -> None:
    """DataError if a network was trained on other forces than this data holds, or needs bonds that it lacks."""
    check_bonds_known(spec, [data])
    for trained_on in spec.metadata.get("data", []):
        forces = trained_on.get("forces", LabelledForces.ALL.value)
        if forces != forces_of(data):
            raise DataError(
                f"the network was trained on {forces} forces, {data.path} is labelled with {forces_of(data).value}: "
                f"give data labelled with --forces {forces}"
            )


def frame_dataset(
    spec: ForceSpec,
    groups: Sequence[TopologyFrames],
    rotate: bool = False,
    seed: int = 0,
    pair_term: PairTerm | None = None,
) -> ConcatDataset[FrameBatch]:
    """All frames of these trajectories, one topology after the other.

    Raises:
        DataError: if there is none.
        TopologyError: if a topology has an element the network does not know.
    """
    if not groups:
        raise DataError("no trajectories were chosen: give seeds that the data has")
    return ConcatDataset(
        [
            FrameDataset(
                group.trajectories,
                real_atoms(group.topology),
                species_table(group.topology, spec.elements),
                partner_table(spec, group.topology),
                spec.neighbors.cutoff,
                rotate=rotate,
                seed=seed + index,
                num_species=len(spec.elements),
                pair_term=pair_term,
            )
            for index, group in enumerate(groups)
        ]
    )


def force_errors(
    model: ForceModel, groups: Sequence[TopologyFrames], report: Callable[[float], None] = lambda _: None
) -> ForceErrors:
    """Errors of a network on every frame of some trajectories.

    Raises:
        TopologyError: if a topology has an element the network does not know.
    """
    frames = frame_dataset(model.spec, groups, pair_term=model.pair_term)
    meter = ForceErrorMeter()
    with torch.no_grad():
        for index in range(len(frames)):
            frame = frames[index]
            meter.add(predicted_forces(model, frame), frame.forces)
            report((index + 1) / len(frames))
    return meter.errors()


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    seeds: Sequence[int],
    record: bool = False,
    report: Callable[[float], None] = lambda _: None,
) -> ForceErrors:
    """The errors of a network on trajectories that it was not trained on.

    Args:
        model: shipped name, bundle, or exported module.
        data: directory written by `openmm-gnn label` or `import-labels`, or several.
        seeds: of the trajectories, in any of them.
        record: write the figures into the bundle's metadata, too.
        report: called with the share of the frames that is done.
    Raises:
        DataError: if the network was trained on other forces than the data holds, or a seed is missing.
        TopologyError: if a topology has an element the network does not know.
    """
    paths = [Path(data)] if isinstance(data, (str, os.PathLike)) else [Path(path) for path in data]
    network, opened = load_model(model), open_all(paths)
    for one in opened:
        check_evaluable(network.spec, one)
    errors = force_errors(network, select_seeds(opened, seeds), report)
    if record:
        held_out = {
            "data": " ".join(path.name for path in paths),
            "seeds": seed_ranges(seeds),
            **dataclasses.asdict(errors),
        }
        save_network(network, model, {**network.spec.metadata, "held_out": held_out})
    return errors
