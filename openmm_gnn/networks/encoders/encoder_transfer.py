"""A pretrained encoder put to another use: more elements, other neighbours, weights that stay or learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_hash


def known_elements(spec: EncoderSpec) -> tuple[int, ...]:
    """Atomic numbers that an encoder has learned; all it has room for, where its training data are unknown."""
    return spec.elements or tuple(range(1, spec.max_atomic_number + 1))


def transferred_spec(spec: EncoderSpec, elements: Sequence[int], neighbor_rule: NeighborRule) -> EncoderSpec:
    """The spec of the same encoder with room for these elements too, without its denoising head."""
    every = sorted({*known_elements(spec), *elements})
    return dataclasses.replace(
        spec,
        elements=tuple(every),
        max_atomic_number=max(spec.max_atomic_number, *every),
        neighbor_rule=neighbor_rule,
        noise_scale=0.0,
        metadata={},
    )


def start_from(encoder: Encoder, pretrained: Encoder) -> tuple[int, ...]:
    """Give an encoder the weights of a pretrained one, and return the elements that are new to them.

    Embeddings of new elements are drawn from the normal distribution of the learned ones, channel by channel.

    Raises:
        SpecError: if `encoder` is not of a `transferred_spec` of the pretrained one.
    """
    expected = transferred_spec(pretrained.spec, known_elements(encoder.spec), encoder.spec.neighbor_rule)
    if encoder.spec != expected:
        raise SpecError(f"the pretrained encoder fits {expected}, but the network has {encoder.spec}: give its own")
    learned = list(known_elements(pretrained.spec))
    new = tuple(number for number in known_elements(encoder.spec) if number not in learned)
    tables = {f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Embedding)}
    weights = {name: x for name, x in pretrained.state_dict().items() if not name.startswith("noise_head.")}
    own = encoder.state_dict()
    for name in tables:
        table, rows = own[name].clone(), weights[name][learned]
        spread = rows.std(dim=0) if len(rows) > 1 else rows.abs().mean(dim=0)
        table[: len(weights[name])] = weights[name]
        for number in new:
            table[number] = rows.mean(dim=0) + spread * torch.randn_like(spread)
        weights[name] = table
    encoder.load_state_dict(weights)
    return new


def freeze(encoder: Encoder, except_elements: Sequence[int] = ()) -> None:
    """Let training change nothing of an encoder but the embeddings of these elements."""
    encoder.requires_grad_(False)
    if not except_elements:
        return
    for module in encoder.modules():
        if isinstance(module, nn.Embedding):
            learning = torch.zeros(len(module.weight), 1)
            learning[list(except_elements)] = 1.0
            module.weight.requires_grad_(True)
            module.weight.register_hook(partial(_times, learning))


def encoder_provenance(pretrained: Encoder, frozen: bool, random_weights: bool = False) -> dict[str, Any]:
    """What a trained network's metadata say about the encoder it began with."""
    return {
        "encoder": {
            "hash": encoder_hash(pretrained),
            "metadata": pretrained.spec.metadata,
            "frozen": frozen,
            "random_weights": random_weights,
        }
    }


def _times(factors: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factors.to(gradient)
