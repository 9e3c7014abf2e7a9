"""A bundle: one safetensors file with a network's weights and, in its header, the spec they belong to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.force import FORCE_SPECS
from openmm_gnn.networks.force_model import ForceModel, make_model

BUNDLE_SUFFIX = ".safetensors"
SPEC_KEY = "openmm_gnn_spec"


def save_bundle(model: ForceModel, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Write a model's weights and spec to `path`; the file is complete or not there at all.

    Args:
        model: what to save.
        path: a name that ends in .safetensors.
        metadata: takes the place of the spec's own: where the weights come from and how good they are.
    """
    spec = model.spec if metadata is None else dataclasses.replace(model.spec, metadata=metadata)
    return write_bundle(model.state_dict(), spec_to_json(spec), path)


def write_bundle(weights: Mapping[str, torch.Tensor], spec_json: str, path: str | os.PathLike[str]) -> Path:
    """Write tensors and the spec they belong to, to a `path` that ends in .safetensors."""
    path = Path(path)
    if path.suffix != BUNDLE_SUFFIX:
        raise DataError(f"{path}: a bundle's name ends in {BUNDLE_SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = save(tensors, metadata={SPEC_KEY: spec_json})
    partial = path.with_name(path.name + ".part")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def load_bundle(path: str | os.PathLike[str]) -> ForceModel:
    """The model saved by `save_bundle`, on the CPU, in float32 and evaluation mode.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is no bundle, or its weights do not fit its spec.
    """
    spec_json, weights = read_bundle(Path(path))
    return build_model(spec_json, weights, str(path))


def read_bundle(path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The spec and the tensors of a bundle; raises what `load_bundle` raises for a file that is none."""
    if not path.is_file():
        raise FileNotFoundError(f"no bundle at {path}: give the path of a {BUNDLE_SUFFIX} file, or a shipped name")
    try:
        with safe_open(path, framework="pt") as file:
            spec_json = (file.metadata() or {}).get(SPEC_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file ({error}): it may be cut short; copy it again") from error
    if spec_json is None:
        raise DataError(f"{path} has no {SPEC_KEY} in its header: it was not written by openmm_gnn")
    return spec_json, weights


def build_model(spec_json: str, weights: dict[str, torch.Tensor], source: str) -> ForceModel:
    """A GAMD with these weights, which must fit the spec exactly.

    Raises:
        DataError: naming `source`, if a weight is missing, unknown, of the wrong shape or not finite.
    """
    model = make_model(spec_from_json(spec_json, *FORCE_SPECS))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"the weights of {source} do not fit its spec: {error}") from error
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"weight {name} of {source} is not finite: the training diverged; train again")
    return model.eval()
