"""A learned CV: an encoder and a CV network with all that leads from the atoms of one molecule to slow variables."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.base.specs.codec import SPEC_VERSION, read_document, spec_to_json
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer_settings import WHOLE, GraphContext
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_hash
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.weights import CV_NETWORKS, ENCODERS, Kind, load, load_encoder, write_bundle

KIND = "learned-cv"
CHUNK_FRAMES = 2048
WINDOW_FRAMES = 50
"""Frames over which a variable's fluctuation is taken."""
_OF_ONE_SOURCE = ("topology_hash", "selection", "tokens", "reduction")


@dataclass(frozen=True)
class OutputRanges:
    """What each output was seen to be in the frames a CV was made from: a bias keeps to that, with a margin."""

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fluctuation: tuple[float, ...]
    """Within 50 frames in a row, the median over the run of the standard deviation: as wide as a basin."""

    def __post_init__(self) -> None:
        for name, values in asdict(self).items():
            object.__setattr__(self, name, tuple(float(value) for value in values))
        lengths = {len(values) for values in asdict(self).values()}
        if len(lengths) != 1 or 0 in lengths or not all(np.isfinite(values).all() for values in asdict(self).values()):
            raise SpecError(f"ranges of {sorted(lengths)} outputs, or not finite: give five numbers for each output")
        for number, (low, high) in enumerate(zip(self.minimum, self.maximum, strict=True)):
            if not high > low:
                raise SpecError(
                    f"output {number} is {low} in every frame: a variable that never changes cannot be biased; "
                    "train on longer runs, or leave the output out of the map"
                )

    @classmethod
    def of_series(cls, series: Sequence[np.ndarray]) -> OutputRanges:
        """The ranges of the outputs along several runs, (frames, outputs) each."""
        every = np.concatenate(series)
        if not len(every):
            raise DataError("there are no frames to take the ranges of the outputs from: give a longer run")
        windows = [
            window.std(axis=0)
            for values in series
            for window in np.array_split(values, max(1, len(values) // WINDOW_FRAMES))
            if len(window)
        ]
        given = (every.min(0), every.max(0), every.mean(0), every.std(0), np.median(windows, axis=0))
        return cls(*(tuple(values.tolist()) for values in given))


LEAST_CORRELATION = float(np.exp(-1))
"""Correlation at the lag of a variable whose timescale is the lag."""


@dataclass(frozen=True)
class Slowness:
    """How slow each output is in frames from which it was not learned."""

    lag_ps: float
    pairs: int
    """Pairs of frames a lag apart."""
    correlations: tuple[float, ...]
    """Correlation of each output with itself a lag later."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "correlations", tuple(float(value) for value in self.correlations))
        if not (np.isfinite(self.correlations).all() and self.lag_ps > 0 and self.pairs >= 0):
            raise SpecError(f"correlations {self.correlations} of {self.pairs} pairs, {self.lag_ps} ps: not finite")

    @property
    def slow(self) -> tuple[int, ...]:
        """The outputs that outlive the lag, counted from 0."""
        return tuple(np.flatnonzero(np.array(self.correlations) > LEAST_CORRELATION).tolist())

    def words_of(self, output: int) -> str:
        """That an output is not slow, and by how much."""
        return (
            f"output {output}, counted from 0, is not slow in frames that it was not learned from: its correlation "
            f"after {self.lag_ps:g} ps is {self.correlations[output]:.2f} there, over {self.pairs} pairs"
        )


@dataclass(frozen=True)
class LearnedCV:
    """Slow variables of one topology, ready to be evaluated, biased or saved."""

    encoder: Encoder
    network: CVNetwork
    topology_hash: str
    """Hash of the atoms that the encoder sees, from `features.topologies.topology_hash`."""
    tokens: dict[str, Any]
    """The token table, as `TokenTable.to_json` writes it."""
    ranges: OutputRanges
    selection: str | None = None
    """Atoms that the encoder sees, as for `Featurizer`."""
    reduction: str = "sum"
    """How the features of a token's atoms are reduced to one: "sum" or "mean"."""
    context: GraphContext = WHOLE
    """The graphs that the encoder sees: the whole selection, or a window of residues around each."""
    slowness: Slowness | None = None
    """How slow the outputs are in held-out frames; None: nobody has looked."""
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        spec = self.network.spec
        found = (len(self.tokens.get("labels", ())), self.encoder.spec.width)
        if found != (spec.num_tokens, spec.input_width):
            raise SpecError(
                f"the network takes {spec.num_tokens} tokens of width {spec.input_width}, the features have {found[0]} "
                f"of width {found[1]}: give the network that was trained on these features"
            )
        if len(self.ranges.mean) != self.num_outputs:
            raise SpecError(f"ranges of {len(self.ranges.mean)} outputs, the network has {self.num_outputs}")
        if self.slowness is not None and len(self.slowness.correlations) != self.num_outputs:
            raise SpecError(f"{len(self.slowness.correlations)} correlations for {self.num_outputs} outputs")
        if self.reduction not in ("sum", "mean"):
            raise SpecError(f"reduction is {self.reduction!r}: give sum or mean")

    @property
    def num_outputs(self) -> int:
        return self.network.num_outputs

    @property
    def cutoff_nm(self) -> float:
        """Distance below which the encoder's atoms are neighbours."""
        return self.encoder.spec.cutoff / self.encoder.spec.per_nm

    @property
    def encoder_hash(self) -> str:
        return encoder_hash(self.encoder)

    def check_continuous(self) -> None:
        """Refuse to be biased where the variables jump: each jump would heat or cool the molecule.

        Raises:
            SpecError: if the encoder's features are not continuous.
        """
        if words := jumps_of(self.encoder.spec):
            raise SpecError(
                f"the CV jumps, and a bias along it would heat the molecule: {words}. Make the features again in the "
                "form that is now the default (--neighbor-rule fading) and learn the CV from them; or give "
                "allow_jumps=True (--bias-allow-jumps) to bias it all the same"
            )

    def check_slow(self, outputs: Sequence[int]) -> None:
        """Refuse outputs that held-out frames have shown not to be slow: data were too few to learn them.

        Raises:
            SpecError: naming the first of them.
        """
        if self.slowness is not None:
            for output in outputs:
                if output not in self.slowness.slow:
                    slow = list(self.slowness.slow)
                    raise SpecError(
                        f"{self.slowness.words_of(output)}. Learn the CV from more data or at a shorter lag, bias the "
                        f"outputs that are slow ({slow or 'none is'}), or give allow_few_data=True "
                        "(--bias-allow-few-data) to bias it all the same"
                    )

    @classmethod
    def from_store(
        cls,
        store: Any,
        network: CVNetwork,
        encoder: Encoder | str | os.PathLike[str],
        metadata: dict[str, Any] | None = None,
    ) -> LearnedCV:
        """The CV of a network that was trained on an embedding store.

        Args:
            store: an EmbeddingStore, or several of one source; the ranges are those of all their frames.
            network: its outputs are the variables.
            encoder: that of the store, or its name or path.
        Raises:
            DataError: if a store was made by another encoder, or the stores differ in topology or tokens.
            NonFiniteError: if the network's outputs are not finite, naming the store.
        """
        stores = list(store) if isinstance(store, list | tuple) else [store]
        loaded = load_encoder(encoder)
        network = copy.deepcopy(network).requires_grad_(False).eval()
        own = encoder_hash(loaded)
        first = stores[0].meta["description"]
        for one in stores:
            description = one.meta["description"]
            made_by = description["encoder"]
            if made_by["hash"] != own:
                raise DataError(
                    f"{one.path} holds features of the encoder {made_by['name']} ({made_by['hash'][:12]}), given is "
                    f"one of hash {own[:12]}: give the encoder and the neighbour rule the features were made with"
                )
            differing = [name for name in _OF_ONE_SOURCE if description[name] != first[name]]
            if GraphContext.from_description(description) != GraphContext.from_description(first):
                differing.append("context")
            if differing:
                raise DataError(f"{one.path} and {stores[0].path} differ in {differing}: give stores of one source")
        ranges = OutputRanges.of_series([outputs_of_store(network, one) for one in stores])
        return cls(
            encoder=copy.deepcopy(loaded).requires_grad_(False).eval(),
            network=network,
            topology_hash=first["topology_hash"],
            tokens=first["tokens"],
            ranges=ranges,
            selection=first["selection"],
            reduction=first["reduction"],
            context=GraphContext.from_description(first),
            metadata=metadata or {},
        )


def jumps_of(spec: EncoderSpec) -> str:
    """Where features of an encoder jump, in words; empty if they do not."""
    if spec.is_continuous:
        return ""
    words = []
    if not spec.neighbor_rule.is_continuous:
        rule, most = spec.neighbor_rule.value, spec.max_neighbors
        words.append(f"by the neighbour rule {rule} an atom has {most} neighbours at most, which change")
    if not spec.smooth and spec.architecture is not Architecture.TENSORNET:
        words.append(f"messages of {spec.architecture.value} end at a step at the cutoff")
    return ", and ".join(words)


def outputs_of_store(network: CVNetwork, store: Any) -> np.ndarray:
    """Outputs of a network along an embedding store, (frames, outputs) float64.

    Raises:
        NonFiniteError: if one is not finite, naming store and step.
    """
    records = store.records
    parts = []
    dtype = network.output_mean.dtype
    with torch.no_grad():
        for start in range(0, len(records), CHUNK_FRAMES):
            cut = records[start : start + CHUNK_FRAMES]
            tokens = torch.from_numpy(cut["embedding"].astype(np.float32)).to(dtype)
            coordinates = torch.from_numpy(cut["coordinates"].astype(np.float32)).to(dtype)
            parts.append(network(tokens, coordinates).double().numpy())
    outputs = np.concatenate(parts) if parts else np.empty((0, network.num_outputs))
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"the network's outputs are not finite at step {records['step'][bad[0]]} of {store.path}: the training "
            "diverged, or the features are damaged"
        )
    return outputs


def save_learned_cv(cv: LearnedCV, path: str | os.PathLike[str]) -> Path:
    """Write a CV, encoder included, as one bundle; the file is complete or not there at all.

    Args:
        path: a name that ends in .safetensors.
    """
    weights = {f"encoder.{name}": tensor for name, tensor in cv.encoder.state_dict().items()}
    weights |= {f"network.{name}": tensor for name, tensor in cv.network.state_dict().items()}
    document = {
        "kind": KIND,
        "version": SPEC_VERSION,
        "encoder": json.loads(spec_to_json(cv.encoder.spec)),
        "encoder_hash": cv.encoder_hash,
        "network": json.loads(spec_to_json(cv.network.spec)),
        "topology_hash": cv.topology_hash,
        "selection": cv.selection,
        "tokens": cv.tokens,
        "reduction": cv.reduction,
        **cv.context.to_json(),
        "ranges": asdict(cv.ranges),
        "slowness": None if cv.slowness is None else asdict(cv.slowness),
        "metadata": cv.metadata,
    }
    return write_bundle(weights, json.dumps(document, sort_keys=True), path)


def load_learned_cv(path_or_name: LearnedCV | str | os.PathLike[str]) -> LearnedCV:
    """The CV of a bundle, or a shipped one, on the CPU, its weights frozen; a CV is given back.

    Raises:
        FileNotFoundError: if it is neither a shipped name nor a file.
        DataError: if the file is no such bundle, or its parts do not fit each other.
    """
    return load(LEARNED_CVS, path_or_name)


def _made(text: str, weights: dict[str, torch.Tensor]) -> LearnedCV:
    """The CV of a document and its weights."""
    document = read_document(text, [KIND])
    parts: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "network": {}}
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    try:
        cv = LearnedCV(
            encoder=ENCODERS.make(json.dumps(document["encoder"]), parts["encoder"]),
            network=CV_NETWORKS.make(json.dumps(document["network"]), parts["network"]).requires_grad_(False),
            topology_hash=document["topology_hash"],
            tokens=document["tokens"],
            ranges=OutputRanges(**document["ranges"]),
            selection=document["selection"],
            reduction=document["reduction"],
            context=GraphContext.from_description(document),
            slowness=Slowness(**document["slowness"]) if document.get("slowness") else None,
            metadata=document["metadata"],
        )
        saved_with = document["encoder_hash"]
    except (KeyError, TypeError) as error:
        raise SpecError(f"the specification has unknown or missing fields: {error}") from error
    if cv.encoder_hash != saved_with:
        raise SpecError("its encoder is not the one it was saved with: the file is damaged, copy it again")
    return cv


LEARNED_CVS: Kind[LearnedCV] = Kind("learned CV", "cvs", "the cv.safetensors that `openmm-gnn analyze` wrote", _made)
