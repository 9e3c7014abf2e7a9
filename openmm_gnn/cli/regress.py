"""`openmm-gnn regress`: a property of molecules or atoms, learned on a pretrained encoder."""

from __future__ import annotations

import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.base.specs.property import Readout, Target


def regress(
    labels: Annotated[
        Path, typer.Argument(help="Extended XYZ; or .csv with the columns molecule, perhaps frame, and the property.")
    ],
    encoder: Annotated[str, typer.Option(help="A shipped name, a bundle, or a geom2vec checkpoint (.pth).")],
    property_name: Annotated[str, typer.Option("--property", help="Name of the property in the labels.")],
    out: Annotated[Path, typer.Option(help="Directory of the run: model.safetensors, log.csv, last.ckpt.")],
    target: Annotated[
        Target, typer.Option(help="One number of each molecule, one vector of it, or one number of each atom.")
    ] = Target.MOLECULE,
    readout: Annotated[Readout, typer.Option(help="How atoms make up a molecule.")] = Readout.SUM,
    unit: Annotated[str, typer.Option(help="Of the labels, to be shown; nothing is converted.")] = "",
    conformations: Annotated[
        Path | None, typer.Option(help="With a .csv: directory written by `openmm-gnn conformers`.")
    ] = None,
    group_key: Annotated[
        str | None, typer.Option(help="Entry of extended XYZ that tells molecules apart. Default: the formula.")
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze/--fine-tune", help="Train the head alone, or all weights.")] = True,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The encoder's architecture without what it has learned.")
    ] = False,
    hydrogens: Annotated[
        bool | None, typer.Option(help="Whether the network sees them. Default: if the encoder has met any.")
    ] = None,
    new_elements: Annotated[
        bool, typer.Option("--new-elements", help="Learn embeddings of elements that the encoder has not met.")
    ] = False,
    hold_out: Annotated[int, typer.Option(help="Every so-manieth molecule chooses the best weights.")] = 5,
    by_frame: Annotated[bool, typer.Option("--by-frame", help="Hold out frames instead of whole molecules.")] = False,
    steps: Annotated[int, typer.Option(help="Optimisation steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Frames per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest of the schedule.")] = 1e-3,
    validate_every: Annotated[int, typer.Option(help="Steps between validations and checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Learn a property from labels in files, on an encoder that stays as it is or learns along.

    Molecules are held out as a whole. Predict it of others, never seen before, with `openmm-gnn predict`.
    """
    import torch

    from openmm_gnn.learning.properties import property_sets
    from openmm_gnn.learning.properties.properties import PropertySettings, train_property
    from openmm_gnn.learning.properties.property_labels import read_labels
    from openmm_gnn.networks.encoders.encoder_transfer import encoder_provenance
    from openmm_gnn.networks.weights import load_encoder, load_property_model

    if threads:
        torch.set_num_threads(threads)
    pretrained = load_encoder(encoder)
    frames = read_labels(labels, property_name, target, conformations, group_key)
    spec = property_sets.property_spec(
        pretrained.spec, frames, property_name, target, readout, hydrogens, new_elements, unit
    )
    sets = property_sets.hold_out(frames, hold_out, by_frame)
    settings = PropertySettings(
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        freeze_encoder=freeze and not random_weights,
        validate_every=validate_every,
        seed=seed,
    )
    provenance = {
        "command": shlex.join(["openmm-gnn", *sys.argv[1:]]),
        "labels": {
            "file": labels.name,
            "training_frames": len(sets.training),
            "validation_frames": len(sets.validation),
            "validation_molecules": sorted({frame.group for frame in sets.validation}),
        },
        **encoder_provenance(pretrained, settings.freeze_encoder, random_weights),
        "versions": {name: version(name) for name in ("openmm-gnn", "torch", "lightning")},
    }
    start = None if random_weights else pretrained
    bundle = train_property(spec, sets, settings, out, start, progress=progress, provenance=provenance)
    figures = load_property_model(bundle).spec.metadata["validation"]
    of = f" {unit}" if unit else ""
    typer.echo(
        f"{property_name} of {len(sets.validation)} frames held out: mean absolute error "
        f"{figures['validation_mae']:.4g}{of}; by their elements alone {figures['elements_mae']:.4g}{of}"
    )
    typer.echo(f"wrote {bundle}: predict with `openmm-gnn predict {bundle} FILES`")
