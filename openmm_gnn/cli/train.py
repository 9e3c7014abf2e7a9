"""`openmm-gnn train`: fit a network to labelled trajectories."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from openmm_gnn.cli.typer_options import parse_seeds


class Network(str, Enum):
    """The force models that can be trained."""

    GAMD = "gamd"
    VECTOR = "vector"
    ENCODER = "encoder"


def train(
    data: Annotated[list[Path], typer.Argument(help="Directories written by `openmm-gnn label` or `import-labels`.")],
    out: Annotated[Path, typer.Option(help="Directory of the run: model.safetensors, log.csv, last.ckpt.")],
    train_seeds: Annotated[str, typer.Option(help="Trajectories to train on, such as 1-8 or 1,2,5.")] = "1-8",
    validation_seeds: Annotated[str, typer.Option(help="Trajectories that choose the best weights.")] = "9",
    network: Annotated[
        Network,
        typer.Option(
            help="gamd: the paper's; vector: its atoms carry vectors too, for molecules; encoder: a pretrained "
            "encoder with a head, which brings its own cutoff, width and layers."
        ),
    ] = Network.GAMD,
    encoder: Annotated[
        str | None, typer.Option(help="encoder: a shipped name, a bundle, or a geom2vec checkpoint (.pth).")
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze/--fine-tune", help="encoder: train the head (and elements new to the encoder) alone, or all."
        ),
    ] = False,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="encoder: its architecture without what it has learned.")
    ] = False,
    decoder: Annotated[str, typer.Option(help="gamd: pair (covariant, no net force) or node (the paper's).")] = "pair",
    cutoff: Annotated[float, typer.Option(help="nm.")] = 0.75,
    skin: Annotated[float, typer.Option(help="Of the neighbour list, nm.")] = 0.1,
    max_neighbors: Annotated[
        int, typer.Option(help="Capacity of the list: mean pairs per atom within cutoff + skin, each counted once.")
    ] = 96,
    width: Annotated[int, typer.Option(help="Features per atom and edge.")] = 64,
    layers: Annotated[int, typer.Option(help="Rounds of messages.")] = 2,
    radial: Annotated[int, typer.Option(help="Radial basis functions.")] = 32,
    min_distance: Annotated[float, typer.Option(help="Centre of the first of them, nm.")] = 0.0,
    pair_cutoff: Annotated[
        float, typer.Option(help="vector: reach of a pair term fitted beforehand, nm; 0: none.")
    ] = 0.0,
    pair_radial: Annotated[int, typer.Option(help="vector: spline coefficients of the pair term.")] = 60,
    charge_width: Annotated[
        float, typer.Option(help="vector: width of charges beyond the pair term, nm, such as 0.18; 0: none.")
    ] = 0.0,
    conservative: Annotated[
        bool, typer.Option(help="vector, encoder: predict an energy and derive the forces; training takes longer.")
    ] = False,
    envelope_exponent: Annotated[int, typer.Option(help="gamd: larger: flatter inside, steeper at the cutoff.")] = 6,
    bonds: Annotated[bool, typer.Option(help="Tell pairs that are one or two bonds apart from others.")] = False,
    remove_net_force: Annotated[
        bool, typer.Option(help="gamd (node decoder), encoder (not conservative): subtract the mean force.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Optimisation steps.")] = 8000,
    batch_size: Annotated[int, typer.Option(help="Frames per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Highest of the schedule.")] = 2e-3,
    validate_every: Annotated[int, typer.Option(help="Steps between validations and checkpoints.")] = 500,
    validation_frames: Annotated[int, typer.Option(help="Frames per validation, evenly spread.")] = 100,
    seed: Annotated[int, typer.Option(help="Of weights, order and rotations.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network on the forces of labelled trajectories; a killed run goes on when the command is given again.

    Whole trajectories are held out by their seeds: those in neither list are left for `openmm-gnn evaluate`.
    """
    from functools import partial

    import torch

    from openmm_gnn.base.specs.force import Decoder, EncoderForceSpec, GAMDSpec, NeighborSpec, VectorGAMDSpec
    from openmm_gnn.learning.training.force_matching import train as run
    from openmm_gnn.learning.training.settings import TrainingSettings

    if threads:
        torch.set_num_threads(threads)
    if (network is Network.ENCODER) != (encoder is not None):
        raise typer.BadParameter("--network encoder and --encoder NAME go together", param_hint="--encoder")
    settings = TrainingSettings(
        train_seeds=tuple(parse_seeds(train_seeds)),
        validation_seeds=tuple(parse_seeds(validation_seeds)),
        validation_frames=validation_frames,
        freeze_encoder=freeze,
        random_weights=random_weights,
        num_steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        validate_every=validate_every,
        seed=seed,
    )
    if network is Network.ENCODER:
        spec: partial[Any] = partial(
            EncoderForceSpec,
            conservative=conservative,
            remove_net_force=remove_net_force,
            skin=skin,
            max_neighbors=max_neighbors,
        )
    else:
        common: dict[str, Any] = {
            "neighbors": NeighborSpec(cutoff, skin=skin, max_neighbors=max_neighbors),
            "width": width,
            "num_layers": layers,
            "num_radial": radial,
            "min_distance": min_distance,
            "use_bonds": bonds,
        }
        if network is Network.VECTOR:
            own: dict[str, Any] = {"pair_cutoff": pair_cutoff, "pair_radial": pair_radial, "charge_width": charge_width}
            spec = partial(VectorGAMDSpec, conservative=conservative, **common, **own)
        else:
            own = {"envelope_exponent": envelope_exponent, "remove_net_force": remove_net_force}
            spec = partial(GAMDSpec, decoder=Decoder(decoder), **common, **own)
    command = shlex.join(["openmm-gnn", *sys.argv[1:]])
    bundle = run(data, out, spec, settings, encoder, progress, command)
    typer.echo(f"wrote {bundle}: evaluate it on trajectories of other seeds with `openmm-gnn evaluate`")
