"""Networks and their files: one loader, one check and one list of shipped names for all kinds of weights.

A bundle is one safetensors file: the weights, and in its header the spec they belong to. Force models are also read
from the modules that `openmm-gnn export` writes, encoders from geom2vec's checkpoints. Nothing in a file is run.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule, PropertySpec
from openmm_gnn.base.specs.force import FORCE_SPECS, ForceSpec
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.geom2vec_checkpoint import read_geom2vec
from openmm_gnn.networks.encoders.property_model import PropertyModel
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.tokens.cv_network import CVNetwork, cv_network_for

Loaded = TypeVar("Loaded")
Network = TypeVar("Network", bound=nn.Module)
Weights = dict[str, Tensor]
BUNDLE_SUFFIX = ".safetensors"
BUNDLE = "model.safetensors"
"""The file of weights in the directory of a training or a distillation."""
SPEC_KEY = "openmm_gnn_spec"
WEIGHTS_DIRECTORY = Path(__file__).resolve().parent.parent / "weights"


def make_model(spec: ForceSpec) -> ForceModel:
    """A force model of this spec with fresh weights: `NETWORK` of the file that has the name of the spec's kind."""
    file = importlib.import_module(f"openmm_gnn.networks.{spec.kind.replace('-', '_')}")
    model: ForceModel = file.NETWORK(spec)
    return model


def write_bundle(weights: Mapping[str, Tensor], spec_json: str, path: str | os.PathLike[str]) -> Path:
    """Write tensors and the spec they belong to, to a `path` that ends in .safetensors; all of it or nothing."""
    path = Path(path)
    if path.suffix != BUNDLE_SUFFIX:
        raise DataError(f"{path}: a bundle's name ends in {BUNDLE_SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, save(tensors, metadata={SPEC_KEY: spec_json}))
    return path


def read_bundle(path: Path) -> tuple[str, Weights]:
    """The spec, as JSON, and the tensors of a bundle.

    Raises:
        DataError: if the file is no bundle.
    """
    try:
        with safe_open(path, framework="pt") as file:
            spec_json = (file.metadata() or {}).get(SPEC_KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file ({error}): it may be cut short; copy it again") from error
    if spec_json is None:
        raise DataError(f"{path} has no {SPEC_KEY} in its header: it was not written by openmm_gnn")
    return spec_json, weights


def figures_of(bundle: Path) -> dict[str, Any]:
    """The path of a bundle that a training has written, and step and figures of its best validation."""
    metadata = json.loads(read_bundle(bundle)[0])["spec"]["metadata"]
    return {"model": bundle, "step": metadata["step"], "validation": metadata["validation"]}


def read_exported(path: Path) -> tuple[str, Weights]:
    """The spec and the weights of the force model inside a module that `openmm-gnn export` wrote.

    Raises:
        DataError: if the file is no such module.
    """
    import openmm_gnn.kernels.operators  # noqa: F401  (the module's ops must be known before it is loaded)

    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise DataError(f"{path} is not a TorchScript module: {str(error).splitlines()[0]}") from error
    spec_json = getattr(module, "spec_json", None)
    if not isinstance(spec_json, str):
        raise DataError(f"{path} carries no spec_json: give a module that `openmm-gnn export` wrote")
    # TorchScript stores every buffer, also those that follow from the spec: only the weights are taken.
    expected = make_model(spec_from_json(spec_json, *FORCE_SPECS)).state_dict().keys()
    saved = {name.removeprefix("model."): tensor for name, tensor in module.state_dict().items()}
    return spec_json, {name: saved[name] for name in expected if name in saved}


@dataclass(frozen=True)
class Kind(Generic[Loaded]):
    """A kind of weights: how its files are found, read and made use of."""

    name: str
    """Name of the kind in errors."""
    folder: str | None
    """Folder of the package's weights with the shipped ones of this kind; None: there are none."""
    hint: str
    """Files that can be read, for errors."""
    make: Callable[..., Loaded]
    """(spec as JSON, weights, **changes of the spec) -> what is loaded; the weights must fit the spec exactly."""
    readers: Mapping[str, Callable[[Path], tuple[str, Weights]]] = field(
        default_factory=lambda: {BUNDLE_SUFFIX: read_bundle}
    )
    """The reader of each suffix; the first is for any other one."""


def load(kind: Kind[Loaded], name_or_path: Loaded | str | os.PathLike[str], **changes: Any) -> Loaded:
    """What a file or a shipped name holds, on the CPU and in evaluation mode; what is loaded already is given back.

    Args:
        kind: kind of the weights, such as `FORCE_MODELS`.
        name_or_path: a shipped name, the path of a file, or what is loaded already.
        changes: fields of the spec that are to have another value.
    Raises:
        FileNotFoundError: if it is neither a shipped name nor a file.
        DataError: if the file is damaged, of another kind, or a weight is missing, unknown, of the wrong shape or not
            finite.
        SpecError: if changes are asked of what is loaded already.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        if changes:
            raise SpecError(f"the {kind.name} is loaded already: give its file to change {sorted(changes)}")
        return name_or_path
    path = path_of(kind, name_or_path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: it was cut short; copy it again")
    reader = kind.readers.get(path.suffix, next(iter(kind.readers.values())))
    try:
        spec_json, weights = reader(path)
        for name, tensor in weights.items():
            if not bool(torch.isfinite(tensor).all()):
                raise DataError(f"weight {name} of {path} is not finite: the training diverged; train again")
        return kind.make(spec_json, weights, **changes)
    except SpecError as error:
        raise DataError(f"{path} holds no {kind.name}: {error}") from error
    except (RuntimeError, KeyError) as error:
        raise DataError(f"the weights of {path} do not fit its spec: {error}") from error


def path_of(kind: Kind[Any], name_or_path: str | os.PathLike[str]) -> Path:
    """Where the weights are.

    Raises:
        FileNotFoundError: if it is neither a shipped name nor a file.
    """
    names = shipped_names(kind)
    if kind.folder is not None and str(name_or_path) in names:
        return WEIGHTS_DIRECTORY / kind.folder / f"{name_or_path}{BUNDLE_SUFFIX}"
    path = Path(name_or_path)
    if path.is_dir():
        path = path / BUNDLE
    if not path.is_file():
        shipped = f"one of the shipped names {names}, or " if names else ""
        raise FileNotFoundError(f"no {kind.name} {str(name_or_path)!r}: give {shipped}the path of {kind.hint}")
    return path


def shipped_names(kind: Kind[Any]) -> list[str]:
    """Names that `load` knows without a file."""
    if kind.folder is None:
        return []
    return sorted(path.stem for path in (WEIGHTS_DIRECTORY / kind.folder).glob(f"*{BUNDLE_SUFFIX}"))


def save_network(network: Any, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Write a network of any kind as a bundle, for `load`; the file is complete or not there at all.

    Args:
        network: what to save; its `spec` goes into the header.
        path: a name that ends in .safetensors.
        metadata: takes the place of the spec's own: where the weights come from and how good they are.
    """
    spec = network.spec if metadata is None else dataclasses.replace(network.spec, metadata=metadata)
    return write_bundle(network.state_dict(), spec_to_json(spec), path)


def _maker(
    specs: tuple[type[Any], ...], build: Callable[[Any, Weights], Network], frozen: bool
) -> Callable[..., Network]:
    """The `make` of a kind that is one network of one spec; `build` gives it with fresh weights."""

    def make(spec_json: str, weights: Weights, **changes: Any) -> Network:
        spec: Any = dataclasses.replace(spec_from_json(spec_json, *specs), **changes)
        network = build(spec, weights)
        network.load_state_dict(weights)
        if frozen:
            network.requires_grad_(False)
        return network.eval()

    return make


FORCE_MODELS: Kind[ForceModel] = Kind(
    "model",
    "",
    f"a bundle ({BUNDLE_SUFFIX}) or an exported module (.pt)",
    _maker(FORCE_SPECS, lambda spec, _: make_model(spec), frozen=False),
    {BUNDLE_SUFFIX: read_bundle, ".pt": read_exported},
)
ENCODERS: Kind[Encoder] = Kind(
    "encoder",
    "encoders",
    f"a geom2vec checkpoint (.pth) or a bundle ({BUNDLE_SUFFIX})",
    _maker((EncoderSpec,), lambda spec, _: Encoder(spec), frozen=True),
    {".pth": read_geom2vec, BUNDLE_SUFFIX: read_bundle},
)
CV_NETWORKS: Kind[CVNetwork] = Kind(
    "CV network",
    None,
    f"a bundle ({BUNDLE_SUFFIX}) that `openmm-gnn analyze` wrote",
    _maker((CVNetworkSpec,), cv_network_for, frozen=False),
)
PROPERTY_MODELS: Kind[PropertyModel] = Kind(
    "property model",
    None,
    f"a bundle ({BUNDLE_SUFFIX}) that `openmm-gnn regress` wrote",
    _maker((PropertySpec,), lambda spec, _: PropertyModel(spec), frozen=True),
)


def load_model(name_or_path: ForceModel | str | os.PathLike[str]) -> ForceModel:
    """A force model with its weights, on the CPU and in evaluation mode; `.spec` says all about it.

    Args:
        name_or_path: a shipped name ("gamd-argon"), a bundle (.safetensors) or an exported module (.pt); a model is
            given back. A directory stands for the model.safetensors in it, as `train` and `distill` write it.
    Raises:
        FileNotFoundError, DataError: as `load`.
    """
    return load(FORCE_MODELS, name_or_path)


def load_encoder(
    path_or_name: Encoder | str | os.PathLike[str],
    neighbor_rule: str | NeighborRule | None = None,
    smooth: bool | None = None,
) -> Encoder:
    """A pretrained encoder on the CPU, in float32 and evaluation mode, its weights frozen; `.spec` says all about it.

    Args:
        path_or_name: a geom2vec checkpoint (.pth), a bundle of ours (.safetensors), or a shipped name.
        neighbor_rule: "fading", "full", "nearest" or "index" (what geom2vec does on a GPU); None: the bundle's own, and
            fading for a geom2vec checkpoint.
        smooth: whether all messages vanish at the cutoff; None: with the bundle's own rule what it says, by the rules
            fading and full they do, by nearest and index they end at a step as published.
    Raises:
        FileNotFoundError, DataError: as `load`.
        SpecError: for an unknown rule.
    """
    return load(ENCODERS, path_or_name, **form_of(neighbor_rule, smooth))


def in_form(encoder: Encoder, neighbor_rule: str | NeighborRule | None, smooth: bool | None = None) -> Encoder:
    """An encoder of the same weights with another rule; arguments and errors as `load_encoder`."""
    changes = form_of(neighbor_rule, smooth)
    if not changes:
        return encoder
    other = Encoder(dataclasses.replace(encoder.spec, **changes))
    other.load_state_dict(encoder.state_dict())
    return other.requires_grad_(False).eval()


def form_of(neighbor_rule: str | NeighborRule | None, smooth: bool | None) -> dict[str, Any]:
    """The fields of a spec that `load_encoder` is asked to change.

    Raises:
        SpecError: for an unknown rule.
    """
    if neighbor_rule is None:
        return {} if smooth is None else {"smooth": smooth}
    try:
        rule = NeighborRule(neighbor_rule)
    except ValueError as error:
        rules = [one.value for one in NeighborRule]
        raise SpecError(f"neighbor_rule is {neighbor_rule!r}: give one of {rules}") from error
    return {"neighbor_rule": rule, "smooth": rule.is_continuous if smooth is None else smooth}


def load_cv_network(path: str | os.PathLike[str]) -> CVNetwork:
    """The CV network of a bundle, on the CPU, in evaluation mode, with the dtype it was saved in; errors as `load`."""
    return load(CV_NETWORKS, path)


def load_property_model(path: str | os.PathLike[str]) -> PropertyModel:
    """The property model of a bundle, on the CPU, in evaluation mode, its weights frozen; errors as `load`."""
    return load(PROPERTY_MODELS, path)
