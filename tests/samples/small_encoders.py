"""Encoders of random weights, small enough to be differentiated often, and forces from them."""

from __future__ import annotations

from typing import Any

import torch

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.networks.encoder_force import EncoderForce, encoder_force_spec
from openmm_gnn.networks.encoders.encoder import Encoder


def small_encoder(architecture: Architecture = Architecture.TORCHMD_ET, **changes: Any) -> Encoder:
    """Of heavy atoms, the same each time; its biases are not zero, as they are not after training."""
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"num_layers": 2, "cutoff": 4.0, "width": 16, "num_radial": 8, "num_heads": 2}
    learned = {"max_atomic_number": 8, "elements": (6, 7, 8), "noise_scale": 0.2}
    encoder = Encoder(EncoderSpec(architecture, **(sizes | learned | changes)))
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0.0, 0.3)
    return encoder.requires_grad_(False).eval()


def small_encoder_force(
    architecture: Architecture = Architecture.TORCHMD_ET,
    elements: tuple[int, ...] = (1, 6, 8),
    **changes: Any,
) -> EncoderForce:
    """Forces from that encoder, in evaluation mode; `changes` are fields of `encoder_force_spec`."""
    pretrained = small_encoder(architecture)
    model = EncoderForce(encoder_force_spec(pretrained.spec, elements, **({"force_scale": 100.0} | changes)))
    model.start_from(pretrained)
    return model.requires_grad_(False).eval()
