"""The stored heads of the published code on our modules: names of weights and known slips, for comparison alone."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.tokens.equivariant_layers import EdgeGates

LINEAR = [
    (r"input_projection\.scalar_linear", "projection.scalars"),
    (r"input_projection\.vector_linear", "projection.vectors"),
    (r"input_projection\.output_network\.0", "projection.first"),
    (r"input_projection\.output_network\.1", "projection.second"),
    (r"vec1_proj", "measured"),
    (r"vec2_proj", "kept"),
    (r"update_net\.0", "hidden"),
    (r"update_net\.2", "gates"),
    (r"gnn_layer\.lin_(scalar|vector)_rel", r"convolution.neighbor_\1s"),
    (r"gnn_layer\.lin_(scalar|vector)_root", r"convolution.own.\1s"),
    (r"gnn_layer\.", "convolution.gates."),
    (r"local_qk_conv\.", "query_key.gates."),
    (r"vec_to_geom", "reduced"),
    (r"edge_mlp(?:_geom)?_[sq]\.0", "hidden.0"),
    (r"edge_mlp(?:_geom)?_[sq]\.2", "out.0"),
    (r"edge_mlp(?:_geom)?_[vk]\.0", "hidden.1"),
    (r"edge_mlp(?:_geom)?_[vk]\.2", "out.1"),
    (r"expand_[sq]", "expanded.0"),
    (r"expand_[vk]", "expanded.1"),
    (r"merger\.scalar_merge", "merger.scalars"),
    (r"merger\.vector_merge", "merger.vectors"),
    (r"merger\.projection\.layers\.0", "merger.hidden"),
    (r"merger\.projection\.layers\.2", "merger.out"),
    (r"merger\.normalize", "merger.norm"),
    (r"^mixer\.(\d+)", r"equivariant_mixer.layers.\1"),
    (r"alpha_dot", "product_weight"),
    (r"alpha_norm", "length_weight"),
    (r"q_proj", "query_key.query"),
    (r"k_proj", "query_key.key"),
    (r"\bv_proj", "value"),
    (r"\bo_proj", "out"),
    (r"vec_proj", "products"),
    (r"gate_proj", "gate"),
    (r"ffn\.scalar_lin1", "perceptron.scalars_in"),
    (r"ffn\.vector_lin1", "perceptron.vectors_in"),
    (r"ffn\.(scalar|vector)_lin2", r"perceptron.out.\1s"),
    (r"^mixer\.layers", "scalar_mixer.layers"),
    (r"^transformer_encoder\.", ""),
    (r"^cls_token", "own_token"),
    (r"self_attn\.in_proj_", "projections."),
    (r"self_attn\.out_proj", "out"),
    (r"linear1", "widened"),
    (r"linear2", "narrowed"),
    (r"\bnorm1", "attention_norm"),
    (r"\bnorm2", "perceptron_norm"),
    (r"output_projection\.layers\.0", "head.0"),
    (r"output_projection\.layers\.2", "head.1"),
]
"""Patterns in a published name and what stands for them in ours, applied in this order."""


def our_name(published: str, patterns: Sequence[tuple[str, str]] = LINEAR) -> str:
    for pattern, ours in patterns:
        published = re.sub(pattern, ours, published)
    return published


class PublishedNorm(nn.Module):
    """The published norm: vectors over a mean of batch and tokens, and x, y, z scaled apart."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        made = nn.functional.layer_norm(scalars, scalars.shape[-1:]) * self.scale[0] + self.shift
        mean_square = vectors.square().sum(dim=2, keepdim=True).mean(dim=(0, 1), keepdim=True)
        return made, vectors * torch.rsqrt(mean_square + 1e-5) * self.scale[1:, None]


def stored_lobe(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, np.ndarray]]:
    """Constructor arguments, weights by published name, and the other arrays."""
    with np.load(path) as arrays:
        read = dict(arrays)
    config = json.loads(str(read.pop("config")).replace("'", '"').replace("True", "true").replace("False", "false"))
    weights = {name[6:]: torch.from_numpy(read.pop(name)) for name in sorted(read) if name.startswith("param:")}
    return config, weights, read


def lobe_spec(config: dict[str, Any], local: bool) -> CVNetworkSpec:
    """What the constructor arguments say, in our words."""
    merging = "none" if not config["merger"] else ("equivariant" if config["equi_rep"] else "scalar")
    geometry = "chiral" if config.get("chiral") else "geometric"
    convolution = "none" if not config["merger"] else (geometry if config.get("cheap_gnn") is False else "plain")
    return CVNetworkSpec(
        num_tokens=36,
        input_width=64,
        num_outputs=config["output_channels"],
        mixer="equivariant-attention" if config["equi_rep"] else "subformer",
        width=config["hidden_channels"],
        num_layers=config["num_mixer_layers"],
        num_heads=config["nhead"],
        dropout=config["dropout"],
        merging=merging,
        window=config.get("merger_window", 1) if config["merger"] else 1,
        graph_cutoff=0.8,
        graph_convolution=convolution,
        local_attention=geometry if local else "linear",
        pooling="token" if config["pooling"] == "cls" else config["pooling"],
        head_layers=config["num_mlp_layers"],
    )


def lobe_network(config: dict[str, Any], weights: dict[str, Tensor], slips: bool) -> CVNetwork:
    """Our network with the stored weights, in float64 and evaluation mode.

    Args:
        slips: put the published norm and the published filling of the last scalar window back; without, our norm has
            the published scale of the scalars, and of the vectors the mean over x, y and z.
    """
    network = CVNetwork(lobe_spec(config, any("local_qk_conv" in name for name in weights)))
    width = network.width
    ours: dict[str, Tensor] = {}
    norms: dict[str, PublishedNorm] = {}
    for name, tensor in weights.items():
        if name.startswith("gnn_layer") and network.convolution is None:
            continue  # it is there, and unused
        if name.endswith("norm1.shift") or name.endswith("norm2.shift"):
            norm = our_name(name.removesuffix(".shift"))
            scale = weights[name.replace("shift", "scale")]
            norms[norm] = PublishedNorm(scale.double(), tensor.double())
            ours[f"{norm}.scalars.weight"] = scale[0].expand(width)
            ours[f"{norm}.scalars.bias"] = tensor.expand(width)
            ours[f"{norm}.vector_weight"] = scale[1:].mean().expand(width)
        elif not re.search(r"norm\d\.scale$", name):
            ours[our_name(name)] = tensor
    buffers = ("scalar_mean", "scalar_scale", "vector_scale", "output_mean", "output_matrix")
    ours.update({name: getattr(network, name) for name in buffers})
    network.load_state_dict(ours)
    network.double().eval()
    network.positions = published_positions(len(network.positions), width).double()
    if network.convolution is not None:
        network.convolution.edges.smooth = False  # the published graph, whose edges end abruptly
    for module in network.modules():
        if isinstance(module, EdgeGates):
            module.softness = 1e-8
    if slips:
        for name, module in norms.items():
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module)
        if network.spec.merging.value == "scalar":
            network.merger.members[-1] = published_last_window(36, network.spec.window)
    return network


def published_positions(num_tokens: int, width: int) -> Tensor:
    """Sines and cosines with the published rounding, in float32 throughout."""
    rates = torch.exp(torch.arange(0, width, 2).float() * (-torch.log(torch.tensor(10000.0)) / width))
    angles = torch.arange(num_tokens).float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def published_last_window(num_tokens: int, window: int) -> Tensor:
    """Members of the last window: what is left, then as many of the last tokens as are missing, once more."""
    left: Sequence[int] = range(num_tokens - num_tokens % window, num_tokens)
    return torch.tensor([*left, *range(num_tokens - (window - len(left)), num_tokens)])


PERCEPTRON = [
    (r"^input_proj", "first"),
    (r"^input_norm\.scalar_norm", "norm.scalars"),
    (r"^mp_layers", "layers"),
    (r"conv\.message_func", "messages"),
    (r"norm\.0\.scalar_norm", "heard_norm.scalars"),
    (r"norm\.1\.scalar_norm", "own_norm.scalars"),
    (r"ff_func\.0", "widened"),
    (r"ff_func\.1", "narrowed"),
    (r"wsv", "gate"),
    (r"wh", "mixed"),
    (r"ws", "scalars"),
    (r"wv", "vectors"),
]
MIXER = [
    (r"^mixer\.", "layers."),
    (r"token_mixer\.0", "token_norm"),
    (r"token_mixer\.2\.net\.0", "token_widened"),
    (r"token_mixer\.2\.net\.3", "token_narrowed"),
    (r"channel_mixer\.0", "channel_norm"),
    (r"channel_mixer\.1\.net\.0", "channel_widened"),
    (r"channel_mixer\.1\.net\.3", "channel_narrowed"),
]


def load_legacy(module: nn.Module, arrays: dict[str, np.ndarray], name: str) -> nn.Module:
    """One of our mixers with the weights of an older one, in evaluation mode."""
    patterns = {"subformer": LINEAR, "submixer": MIXER}.get(name, PERCEPTRON)
    ours = {}
    for key, array in arrays.items():
        if key.startswith(f"{name}/param:"):
            ours[our_name(key.partition(":")[2], patterns)] = torch.from_numpy(array)
    for key, tensor in module.state_dict().items():
        if key.endswith("norm.vector_weight"):  # which the published norm has not
            ours[key] = torch.ones_like(tensor)
    module.load_state_dict(ours)
    return module.eval()
