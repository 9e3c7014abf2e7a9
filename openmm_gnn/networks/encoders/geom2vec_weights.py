"""The tensors of a geom2vec checkpoint under the names of our modules: each is used once, none is left over.

Linear maps of one input are one map here, and the channels of parts that follow one another head by head, or three by
three, stand part by part.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec

Weights = dict[str, Tensor]
BODY = "representation_model."
HEADS = {
    Architecture.TORCHMD_ET: "output_model_noise.output_network.",
    Architecture.VISNET: "vec_out.output_network.",
    Architecture.TENSORNET: "output_model_noise.output_network.",
}
UNUSED = re.compile(r"mean|std|pos_normalizer\..*|prior_model\..*")
"""What belongs to the energy, which these checkpoints do not predict, or is read as `noise_scale`."""


def translate(weights: Weights, spec: EncoderSpec, source: str) -> Weights:
    """All tensors under our names, float32.

    Raises:
        DataError: naming `source`, if a tensor is missing, is no tensor of this network, or has another shape.
    """
    tensors = _Tensors(weights, source)
    body = {
        Architecture.TORCHMD_ET: _torchmd_et,
        Architecture.VISNET: _visnet,
        Architecture.TENSORNET: _tensornet,
    }[spec.architecture]
    tensors.move("network.basis.centers", BODY + "distance_expansion.means")
    tensors.move("network.basis.sharpness", BODY + "distance_expansion.betas")
    body(tensors, spec)
    if spec.noise_scale > 0:
        _head(tensors, HEADS[spec.architecture])
    return tensors.finish()


class _Tensors:
    """Takes tensors from the checkpoint, each once, and gives them our names."""

    def __init__(self, weights: Weights, source: str) -> None:
        self._left, self._source, self._made = dict(weights), source, Weights()

    def take(self, name: str) -> Tensor:
        if name not in self._left:
            raise DataError(f"{self._source} has no tensor {name}: it was cut short, or made by another version")
        return self._left.pop(name)

    def move(self, ours: str, theirs: str) -> None:
        self.put(ours, self.take(theirs))

    def put(self, ours: str, tensor: Tensor) -> None:
        self._made[ours] = tensor

    def linear(self, ours: str, *theirs: str, bias: bool = True, parts: int = 1, blocks: int = 1) -> None:
        """Our linear map is theirs, one below the other.

        The output channels of the last of theirs come as `blocks` times `parts` groups: we put the parts outermost.
        """
        for kind in ("weight", "bias") if bias else ("weight",):
            stack = [self.take(f"{name}.{kind}") for name in theirs]
            if stack[-1].shape[0] % (parts * blocks):
                raise DataError(f"{theirs[-1]}.{kind} of {self._source} has shape {tuple(stack[-1].shape)}: damaged")
            groups = stack[-1].reshape(blocks, parts, -1, *stack[-1].shape[1:])
            stack[-1] = groups.transpose(0, 1).reshape(stack[-1].shape)
            try:
                self._made[f"{ours}.{kind}"] = torch.cat(stack)
            except RuntimeError as error:
                raise DataError(
                    f"{theirs[0]}.{kind} of {self._source} and what belongs to it differ: {error}"
                ) from error

    def finish(self) -> Weights:
        left = [name for name in self._left if not UNUSED.fullmatch(name)]
        if left:
            raise DataError(
                f"{self._source} has {len(left)} tensors that this network does not, such as {left[0]}: "
                "it was made by another version"
            )
        return {name: tensor.float().contiguous() for name, tensor in self._made.items()}


def _norm(tensors: _Tensors, ours: str, theirs: str) -> None:
    tensors.move(f"{ours}.weight", f"{theirs}.weight")
    tensors.move(f"{ours}.bias", f"{theirs}.bias")


def _torchmd_et(tensors: _Tensors, spec: EncoderSpec) -> None:
    tensors.move("network.embedding.weight", BODY + "embedding.weight")
    _norm(tensors, "network.norm", BODY + "out_norm")
    heads = spec.num_heads
    for k in range(spec.num_layers):
        ours, theirs = f"network.layers.{k}.", f"{BODY}attention_layers.{k}."
        _norm(tensors, ours + "norm", theirs + "layernorm")
        # The three values come head by head.
        values = [theirs + name for name in ("q_proj", "k_proj", "v_proj")]
        tensors.linear(ours + "node", *values, parts=3, blocks=heads)
        tensors.linear(ours + "radial", theirs + "dk_proj", theirs + "dv_proj", parts=3, blocks=heads)
        tensors.linear(ours + "mixing", theirs + "vec_proj", bias=False)
        tensors.linear(ours + "out", theirs + "o_proj")


def _visnet(tensors: _Tensors, spec: EncoderSpec) -> None:
    neighbor = BODY + "neighbor_embedding."
    tensors.move("network.embedding.weight", BODY + "embedding.weight")
    tensors.move("network.neighbor_embedding.weight", neighbor + "embedding.weight")
    tensors.linear("network.filters.linear", neighbor + "distance_proj", BODY + "edge_embedding.edge_proj")
    tensors.linear("network.combine", neighbor + "combine")
    _norm(tensors, "network.norm", BODY + "out_norm")
    tensors.move("network.vector_norm.weight", BODY + "vec_out_norm.weight")
    for k in range(spec.num_layers):
        ours, theirs = f"network.layers.{k}.", f"{BODY}vis_mp_layers.{k}."
        is_last = k == spec.num_layers - 1
        edge = ["dk_proj", "dv_proj"] + ([] if is_last else ["f_proj"])
        mixing = ["vec_proj"] + ([] if is_last else ["w_trg_proj", "w_src_proj"])
        _norm(tensors, ours + "norm", theirs + "layernorm")
        tensors.move(ours + "vector_norm.weight", theirs + "vec_layernorm.weight")
        tensors.linear(ours + "node", *(theirs + name for name in ("q_proj", "k_proj", "v_proj")))
        tensors.linear(ours + "edge", *(theirs + name for name in edge))
        tensors.linear(ours + "mixing", *(theirs + name for name in mixing), bias=False)
        tensors.linear(ours + "spread", theirs + "s_proj")
        tensors.linear(ours + "out", theirs + "o_proj")


def _tensornet(tensors: _Tensors, spec: EncoderSpec) -> None:
    ours, theirs, width = "network.embedding.", BODY + "tensor_embedding.", spec.width
    tensors.move(ours + "elements.weight", theirs + "emb.weight")
    pair = tensors.take(theirs + "emb2.weight")
    tensors.put(ours + "receiver.weight", pair[:, :width])
    tensors.put(ours + "sender.weight", pair[:, width:])
    tensors.move(ours + "receiver.bias", theirs + "emb2.bias")
    tensors.linear(ours + "radial", *(f"{theirs}distance_proj{k}" for k in (1, 2, 3)))
    _norm(tensors, ours + "norm", theirs + "init_norm")
    tensors.linear(ours + "first", theirs + "linears_scalar.0")
    # Factors of the three parts come channel by channel.
    tensors.linear(ours + "second", theirs + "linears_scalar.1", parts=3, blocks=width)
    _partwise(tensors, ours + "mixing", theirs, 0)
    for k in range(spec.num_layers):
        ours, theirs = f"network.layers.{k}.", f"{BODY}layers.{k}."
        tensors.linear(ours + "first", theirs + "linears_scalar.0")
        tensors.linear(ours + "second", theirs + "linears_scalar.1")
        tensors.linear(ours + "third", theirs + "linears_scalar.2", parts=3, blocks=width)
        _partwise(tensors, ours + "before", theirs, 0)
        _partwise(tensors, ours + "after", theirs, 3)
    _norm(tensors, "network.norm", BODY + "out_norm")
    tensors.linear("network.out", BODY + "linear")


def _partwise(tensors: _Tensors, ours: str, theirs: str, first: int) -> None:
    for k, part in enumerate(("one", "axial", "symmetric")):
        tensors.linear(f"{ours}.{part}", f"{theirs}linears_tensor.{first + k}", bias=False)


def _head(tensors: _Tensors, theirs: str) -> None:
    for k, block in enumerate(("first", "second")):
        ours = f"noise_head.{block}."
        tensors.linear(ours + "measured", f"{theirs}{k}.vec1_proj", bias=False)
        tensors.linear(ours + "kept", f"{theirs}{k}.vec2_proj", bias=False)
        tensors.linear(ours + "hidden", f"{theirs}{k}.update_net.0")
        tensors.linear(ours + "gates", f"{theirs}{k}.update_net.2")


GEOM2VEC_LICENSE = Path(__file__).parents[2].joinpath("weights/encoders/GEOM2VEC_LICENSE.txt").read_text()
"""The licence of geom2vec's public checkpoints, which goes with whatever is trained from their weights."""
