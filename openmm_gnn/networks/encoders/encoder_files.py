"""Encoders by path: geom2vec's checkpoints, our bundles, and those shipped with the package."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule
from openmm_gnn.networks.bundle import BUNDLE_SUFFIX, read_bundle, write_bundle
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.geom2vec_checkpoint import load_geom2vec

ENCODERS_DIRECTORY = Path(__file__).resolve().parents[2] / "weights" / "encoders"


def shipped_encoders() -> list[str]:
    """Names that `load_encoder` knows without a file."""
    return sorted(path.stem for path in ENCODERS_DIRECTORY.glob(f"*{BUNDLE_SUFFIX}"))


def load_encoder(path_or_name: str | os.PathLike[str], neighbor_rule: str | NeighborRule | None = None) -> Encoder:
    """A pretrained encoder on the CPU, in float32 and evaluation mode, its weights frozen; `.spec` says all about it.

    Args:
        path_or_name: a geom2vec checkpoint (.pth), a bundle of ours (.safetensors), or a shipped name.
        neighbor_rule: "nearest", "full" or "index" (what geom2vec does on a GPU); None: the bundle's own, and nearest
            for a geom2vec checkpoint.
    Raises:
        FileNotFoundError: if it is neither a shipped name nor a file.
        DataError: if the file is damaged, holds code, or does not fit the network it describes.
        SpecError: for an unknown rule.
    """
    rule = None if neighbor_rule is None else _rule(neighbor_rule)
    path = Path(path_or_name)
    if str(path_or_name) in shipped_encoders():
        path = ENCODERS_DIRECTORY / f"{path_or_name}{BUNDLE_SUFFIX}"
    if not path.is_file():
        raise FileNotFoundError(
            f"no encoder {str(path_or_name)!r}: give one of the shipped names {shipped_encoders()}, "
            f"or the path of a geom2vec checkpoint (.pth) or a bundle ({BUNDLE_SUFFIX})"
        )
    if path.suffix == BUNDLE_SUFFIX:
        encoder = _load_bundle(path, rule)
    else:
        encoder = load_geom2vec(path) if rule is None else load_geom2vec(path, rule)
    return encoder.requires_grad_(False).eval()


def save_encoder(encoder: Encoder, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Write an encoder as a bundle, for `load_encoder`; the file is complete or not there at all.

    Args:
        encoder: what to save.
        path: a name that ends in .safetensors.
        metadata: takes the place of the spec's own.
    """
    spec = encoder.spec if metadata is None else dataclasses.replace(encoder.spec, metadata=metadata)
    return write_bundle(encoder.state_dict(), spec_to_json(spec), path)


def _rule(name: str | NeighborRule) -> NeighborRule:
    try:
        return NeighborRule(name)
    except ValueError as error:
        raise SpecError(
            f"the neighbour rule is {name!r}: give one of {[rule.value for rule in NeighborRule]}"
        ) from error


def _load_bundle(path: Path, rule: NeighborRule | None) -> Encoder:
    spec_json, weights = read_bundle(path)
    spec: EncoderSpec = spec_from_json(spec_json, EncoderSpec)
    encoder = Encoder(spec if rule is None else dataclasses.replace(spec, neighbor_rule=rule))
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"the weights of {path} do not fit its spec: {error}") from error
    return encoder
