"""`openmm-gnn regress`: a property of molecules or atoms, learned on a pretrained encoder."""

from __future__ import annotations

import shlex
import sys
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

    from openmm_gnn.learning.properties.properties import regress as run
    from openmm_gnn.learning.properties.property_settings import LearnedProperty, PropertySettings
    from openmm_gnn.networks.weights import load_property_model

    if threads:
        torch.set_num_threads(threads)
    wanted = LearnedProperty(property_name, target, readout, unit, conformations, group_key, hydrogens, new_elements)
    settings = PropertySettings(
        freeze_encoder=freeze,
        random_weights=random_weights,
        hold_out=hold_out,
        by_frame=by_frame,
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validate_every=validate_every,
        seed=seed,
    )
    command = shlex.join(["openmm-gnn", *sys.argv[1:]])
    bundle = run(labels, encoder, wanted, out, settings, progress, command)
    metadata = load_property_model(bundle).spec.metadata
    figures, held_out = metadata["validation"], metadata["labels"]["validation_frames"]
    of = f" {unit}" if unit else ""
    typer.echo(
        f"{property_name} of {held_out} frames held out: mean absolute error "
        f"{figures['validation_mae']:.4g}{of}; by their elements alone {figures['elements_mae']:.4g}{of}"
    )
    typer.echo(f"wrote {bundle}: predict with `openmm-gnn predict {bundle} FILES`")
