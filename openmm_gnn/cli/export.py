"""`openmm-gnn export`: a network as a TorchScript file for one topology."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="Shipped name or bundle (.safetensors).")],
    system: Annotated[str, typer.Argument(help="Named system (argon), or a serialised System (.xml).")],
    out: Annotated[Path, typer.Option(help="The TorchScript file to write (.pt).")],
    topology: Annotated[Path | None, typer.Option(help="PDB or PDBx/mmCIF file of a serialised System.")] = None,
) -> None:
    """Write a TorchScript module, checked: frozen equals eager, and moving atoms by box vectors changes nothing."""
    import torch

    from openmm_gnn.forces.modules.export_checks import check_export
    from openmm_gnn.forces.modules.openmm_module import OpenMMModule, script_module
    from openmm_gnn.forces.modules.openmm_module import export as write
    from openmm_gnn.md.systems.systems import load_system
    from openmm_gnn.networks.weights import load_model

    network = load_model(model)
    target = load_system(system, topology)
    positions = torch.from_numpy(target.positions.copy())
    box = None if target.box_vectors is None else torch.from_numpy(target.box_vectors)
    check_export(script_module(network, target.topology), OpenMMModule(network, target.topology), positions, box)
    path = write(network, target.topology, out)
    typer.echo(f"wrote {path}: {path.stat().st_size} bytes for {target.topology.getNumAtoms()} atoms")
