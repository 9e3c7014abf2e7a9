"""Networks by name: the weights shipped with the package, or a file of the user's."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.codec import spec_from_json
from openmm_gnn.base.specs.force import FORCE_SPECS
from openmm_gnn.networks.bundle import BUNDLE_SUFFIX, build_model, load_bundle
from openmm_gnn.networks.force_model import ForceModel, make_model

WEIGHTS_DIRECTORY = Path(__file__).resolve().parent.parent / "weights"


def shipped_names() -> list[str]:
    """Names that `load_model` knows without a file."""
    return sorted(path.stem for path in WEIGHTS_DIRECTORY.glob(f"*{BUNDLE_SUFFIX}"))


def load_model(name_or_path: str | os.PathLike[str]) -> ForceModel:
    """A network with its weights, on the CPU and in evaluation mode; `.spec` says all about it.

    Args:
        name_or_path: a shipped name ("gamd-argon"), a bundle (.safetensors) or an exported module (.pt).
    Raises:
        FileNotFoundError: if it is neither a shipped name nor a file.
        DataError: if the file is not one of ours.
    """
    path = Path(name_or_path)
    if str(name_or_path) in shipped_names():
        return load_bundle(WEIGHTS_DIRECTORY / f"{name_or_path}{BUNDLE_SUFFIX}")
    if not path.is_file():
        raise FileNotFoundError(
            f"no model {str(name_or_path)!r}: give one of the shipped names {shipped_names()}, "
            f"or the path of a bundle ({BUNDLE_SUFFIX}) or an exported module (.pt)"
        )
    if path.suffix == ".pt":
        return _load_exported(path)
    return load_bundle(path)


def _load_exported(path: Path) -> ForceModel:
    """The network inside an exported module: its TorchScript is read for weights and spec only."""
    import openmm_gnn.kernels.library  # noqa: F401  (the module's ops must be known before it is loaded)

    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise DataError(f"{path} is not a TorchScript module: {str(error).splitlines()[0]}") from error
    spec_json = getattr(module, "spec_json", None)
    if not isinstance(spec_json, str):
        raise DataError(f"{path} carries no spec_json: give a module that `openmm-gnn export` wrote")
    expected = make_model(spec_from_json(spec_json, *FORCE_SPECS)).state_dict().keys()
    # TorchScript stores every buffer, also those that follow from the spec: only the weights are taken.
    saved = {name.removeprefix("model."): tensor for name, tensor in module.state_dict().items()}
    return build_model(spec_json, {name: saved[name] for name in expected if name in saved}, str(path))
