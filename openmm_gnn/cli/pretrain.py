"""`openmm-gnn pretrain`: an encoder learns to denoise conformations."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.learning.pretraining.denoising_settings import Precision, Strategy


def pretrain(
    data: Annotated[list[Path], typer.Argument(help="Directories written by `openmm-gnn conformers`.")],
    out: Annotated[
        Path, typer.Option(help="Directory of the run: model.safetensors, log.csv, last.ckpt, tensorboard.")
    ],
    architecture: Annotated[str, typer.Option(help="torchmd-et, visnet or tensornet.")] = "torchmd-et",
    layers: Annotated[int, typer.Option(help="Rounds of messages.")] = 4,
    width: Annotated[int, typer.Option(help="Scalars, and vectors, of an atom.")] = 64,
    radial: Annotated[int, typer.Option(help="Radial basis functions.")] = 32,
    heads: Annotated[int, typer.Option(help="Of the attention.")] = 8,
    cutoff: Annotated[float, typer.Option(help="Angstrom.")] = 7.5,
    neighbor_rule: Annotated[str, typer.Option(help="nearest or full.")] = "nearest",
    max_neighbors: Annotated[int, typer.Option(help="Nearest ones that an atom listens to, itself included.")] = 32,
    noise: Annotated[
        list[float] | None,
        typer.Option(
            help="Standard deviation of the noise, angstrom; by default 0.2, or that of --start. Of several, each "
            "molecule draws one; the first is the unit of the head, and chooses the best weights."
        ),
    ] = None,
    hydrogens: Annotated[bool, typer.Option("--hydrogens", help="Learn from hydrogens too.")] = False,
    hold_out: Annotated[int, typer.Option(help="Every so-manieth molecule chooses the best weights.")] = 10,
    start: Annotated[
        str | None, typer.Option(help="Encoder whose weights to begin with; it brings its architecture and cutoff too.")
    ] = None,
    start_share: Annotated[
        float,
        typer.Option(help="Share of the start's weights in what is kept: 0.5 keeps what they knew of other data."),
    ] = 0.0,
    test: Annotated[
        list[Path] | None,
        typer.Option(help="PDB or PDBx/mmCIF file, never trained on, whose error is kept with the weights."),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out molecules that are damaged, and count them.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Optimisation steps, a multiple of --validate-every.")] = 8000,
    batch_size: Annotated[int, typer.Option(help="Molecules per step.")] = 16,
    batch_atoms: Annotated[
        int, typer.Option(help="At most so many atoms per step, in place of --batch-size; 0: --batch-size counts.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Highest of the schedule.")] = 5e-4,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    average_decay: Annotated[float, typer.Option(help="Of the moving average of the weights; 0: none.")] = 0.999,
    warmup: Annotated[int, typer.Option(help="Steps in which the learning rate rises.")] = 200,
    validate_every: Annotated[int, typer.Option(help="Steps between validations and checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(help="Of weights, order and noise.")] = 0,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic of a step.")] = Precision.FLOAT32,
    devices: Annotated[
        int, typer.Option(help="Processes that share each step, each with a GPU of its own where there are any.")
    ] = 1,
    strategy: Annotated[Strategy, typer.Option(help="Of several processes; auto: ddp.")] = Strategy.AUTO,
    workers: Annotated[int, typer.Option(help="Processes that load frames, for each of the others; 0: none.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads of each process; 0: all.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Pretrain an encoder by denoising; a killed run goes on when the command is given again.

    The error is the mean square of what is left of the noise, on molecules held out, by that of the noise: 1.0 has
    learned nothing. The bundle is read by `load_encoder`.
    """
    from functools import partial

    import torch

    from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec, NeighborRule
    from openmm_gnn.learning.pretraining.denoising import is_first_process
    from openmm_gnn.learning.pretraining.denoising import pretrain as run
    from openmm_gnn.learning.pretraining.denoising_meter import ERROR, METADATA_KEY
    from openmm_gnn.learning.pretraining.denoising_settings import DenoisingSettings, Hardware
    from openmm_gnn.networks.weights import load_encoder

    if threads:
        torch.set_num_threads(threads)
    spec = partial(
        EncoderSpec,
        architecture=Architecture(architecture),
        num_layers=layers,
        cutoff=cutoff,
        width=width,
        num_radial=radial,
        num_heads=heads,
        neighbor_rule=NeighborRule(neighbor_rule),
        max_neighbors=max_neighbors,
    )
    settings = DenoisingSettings(
        noise_scales=tuple(noise or ()),
        hydrogens=hydrogens,
        hold_out=hold_out,
        num_steps=steps,
        batch_size=batch_size,
        batch_atoms=batch_atoms,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        weight_decay=weight_decay,
        average_decay=average_decay,
        start_share=start_share,
        validate_every=validate_every,
        precision=precision,
        seed=seed,
    )
    hardware = Hardware(devices, strategy, workers)
    command = shlex.join(["openmm-gnn", *sys.argv[1:]])
    bundle = run(data, out, spec, settings, start, hardware, test or (), skip_bad, progress, command)
    if not is_first_process():
        return
    metadata = load_encoder(bundle).spec.metadata
    if skipped := metadata["data"]["skipped"]:
        typer.echo(f"left out {len(skipped)} molecules or shards, such as: {skipped[0]}")
    figures = metadata["validation"]
    typer.echo(f"error of denoising (1.0: nothing learned): {figures[ERROR]:.3f} on molecules held out")
    for name, error in figures.items():
        if name.startswith(f"{ERROR}_"):
            typer.echo(f"{error:.3f} {name.removeprefix(f'{ERROR}_').replace('_', ' ', 1)}")
    for name, error in metadata.get(METADATA_KEY, {}).items():
        typer.echo(f"{error:.3f} on {name}")
    typer.echo(f"wrote {bundle}: load it with `load_encoder`")
