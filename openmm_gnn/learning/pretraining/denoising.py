"""Pretraining of encoders by denoising, with Lightning: atoms are moved at random, the network says by how much.

Near the minima of the energy this is learning the forces: the noise that would lead back is their negative.

Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133; noise
of 0.2 angstrom and AdamW with amsgrad: Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecules, check_elements, join_conformations
from openmm_gnn.learning.pretraining.denoising_meter import ERROR, METADATA_KEY, record_denoising_errors, solute
from openmm_gnn.learning.pretraining.denoising_module import (
    Denoising,
    DenoisingData,
    TrainingCurves,
    scales_of,
    tensorboard_logger,
)
from openmm_gnn.learning.settings import USUAL_NOISE, DenoisingSettings, Hardware, Precision
from openmm_gnn.learning.trainer import BestWeights, begin, fit, provenance
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import load_encoder, save_network

ORIGIN = ("source", "license")
"""Fields of an encoder's metadata that pass on to what is trained from its weights."""


def pretrain(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    spec: Callable[..., EncoderSpec] = EncoderSpec,
    settings: DenoisingSettings | None = None,
    start: Encoder | str | os.PathLike[str] | None = None,
    hardware: Hardware | None = None,
    tests: Sequence[Path] = (),
    skip_bad: bool = False,
    progress: bool = True,
) -> Path:
    """Pretrain an encoder and return the path of its bundle, the best by the error on held-out molecules.

    The bundle's metadata say where it comes from: data with their sha256, command, recipe, versions, the weights to
    start from, the figures of the best validation and the error on each test structure. A run that was killed goes on
    from its last validation when called again with the same arguments, with the frames and the noise that it would have
    met; the hardware may be another. With several devices Lightning starts the other processes by the command line that
    started this one, unless a launcher such as torchrun has done so.

    Args:
        data: directories written by `openmm-gnn conformers` or `import-conformers`.
        out: directory of the run.
        spec: gives the spec for `elements`, `max_atomic_number` and `noise_scale`: a partial of `EncoderSpec`.
        start: encoder whose weights to begin with, or its path or shipped name; it brings its spec.
        tests: structures in PDB or PDBx/mmCIF files, never trained on, whose error is kept with the weights.
        skip_bad: leave out molecules that are damaged, and name them in the metadata.
    Raises:
        DataError: if there are no molecules, one is damaged, or the directory belongs to another encoder or other data.
        SpecError: if the encoder to start from, or a test structure, has other elements, or the data do not fit into
            the batches.
        NonFiniteError: if the training diverged.
    """
    settings = settings or DenoisingSettings()
    begin_with = start if start is None or isinstance(start, Encoder) else load_encoder(start)
    paths = [Path(path) for path in data]
    opened = join_conformations(paths, skip_bad).verify(skip_bad)
    split = opened.split(settings.hold_out)
    elements = opened.molecules.elements(settings.hydrogens)
    if begin_with is None:
        noise_scale = (*settings.noise_scales, USUAL_NOISE)[0]
        made = spec(elements=elements, max_atomic_number=max(elements), noise_scale=noise_scale)
    else:
        made = begin_with.spec
        check_elements(made, elements)
    for path in tests:
        solute(path, made, settings.hydrogens)  # what cannot be tested is said now, not after the training
    training, validation = (
        {f"{name}_molecules": len(molecules), f"{name}_frames": sum(molecule.num_frames for molecule in molecules)}
        for name, molecules in (("training", split.training), ("validation", split.validation))
    )
    metadata = {
        "start": None if begin_with is None else begin_with.spec.metadata,
        "data": {
            "directory": [path.resolve().name for path in paths],
            "sha256": opened.sha256,
            **{name: opened.meta[name] for name in ("commands", "settings", "left_out")},
            "skipped": list(opened.skipped),
            **training,
            **validation,
        },
        **provenance(),
    }
    bundle = pretrain_on_molecules(made, *split, settings, out, progress, metadata, begin_with, hardware)
    if tests and is_first_process():
        record_denoising_errors(bundle, tests, settings.hydrogens)
    return bundle


def pretrain_on_molecules(
    spec: EncoderSpec,
    training: Molecules,
    validation: Molecules,
    settings: DenoisingSettings,
    directory: str | os.PathLike[str],
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
    start: Encoder | None = None,
    hardware: Hardware | None = None,
) -> Path:
    """Pretrain an encoder on these molecules; see `pretrain`.

    `metadata` (data with their sha256, command) go into the bundle beside recipe and figures; `start` is an encoder of
    this spec whose weights to begin with, in place of random ones.

    Raises:
        DataError: if there are no molecules, or the directory belongs to another encoder or other data.
        SpecError: if the spec has no noise scale, is not that of `start`, or the data do not fit into the batches.
        NonFiniteError: if the training diverged.
    """
    hardware = hardware or Hardware()
    if start is not None and start.spec != spec:
        raise SpecError(f"the weights to start from belong to {start.spec}: give the same spec, now it is {spec}")
    if start is None and settings.start_share:
        raise SpecError(f"{settings.start_share} of the start's weights are to be kept: say which, there is no start")
    for name, molecules in (("training", training), ("validation", validation)):
        if not molecules:
            raise DataError(f"the {name} set has no molecules: give more of them")
    if spec.noise_scale <= 0:
        raise SpecError("EncoderSpec.noise_scale is 0: give the standard deviation of the noise, such as 0.2 angstrom")
    directory = begin(directory, settings.seed)
    encoder = Encoder(spec)
    origin = {}
    if start is not None:
        encoder.load_state_dict(start.state_dict())
        origin = {name: start.spec.metadata[name] for name in ORIGIN if name in start.spec.metadata}
    data = DenoisingData(spec, training, validation, settings, hardware)
    metadata = {**origin, "recipe": asdict(settings), **(metadata or {})}
    module = Denoising(encoder, settings, data_identity=str(metadata.get("data", {}).get("sha256", "")))
    best = BestWeights(
        directory,
        ("train_error", *data.columns(scales_of(spec, settings))),
        lambda path, figures: save_network(module.best_weights, path, figures),
        metadata,
        ERROR,
    )
    return fit(
        module,
        data,
        None,
        best,
        settings.num_steps,
        progress=progress,
        callbacks=[TrainingCurves()],
        devices=hardware.devices,
        strategy="ddp" if hardware.devices > 1 else "auto",
        use_distributed_sampler=False,
        precision="bf16-mixed" if settings.precision is Precision.BFLOAT16_MIXED else "32-true",
        gradient_clip_val=settings.gradient_clip,
        logger=tensorboard_logger(directory),
        log_every_n_steps=settings.validate_every,  # all that is logged, the curves write themselves
    )


def summary_of(bundle: Path) -> str:
    """What came of a pretraining: what was left out, and the errors of the best weights."""
    metadata = load_encoder(bundle).spec.metadata
    skipped, figures = metadata["data"]["skipped"], metadata["validation"]
    lines = [f"left out {len(skipped)} molecules or shards, such as: {skipped[0]}"] if skipped else []
    lines.append(f"error of denoising (1.0: nothing learned): {figures[ERROR]:.3f} on molecules held out")
    parts = {name.removeprefix(f"{ERROR}_"): error for name, error in figures.items() if name.startswith(f"{ERROR}_")}
    lines += [f"{error:.3f} {name.replace('_', ' ', 1)}" for name, error in parts.items()]
    lines += [f"{error:.3f} on {name}" for name, error in metadata.get(METADATA_KEY, {}).items()]
    return "\n".join([*lines, f"wrote {bundle}"])


def is_first_process() -> bool:
    """Whether this is the first of the processes that train together: the one that writes and prints."""
    return not getattr(rank_zero_only, "rank", 0)
