"""The frozen specification of a CV network: everything that defines one but its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from openmm_gnn.base.errors import SpecError, at_least, one_of, positive, share, whole


class Mixer(str, Enum):
    """How tokens exchange information."""

    MLP = "mlp"
    """No exchange: each token goes through a perceptron before they are pooled."""
    SUBFORMER = "subformer"
    """A transformer of the tokens' scalars, with a learned token of its own that can be read out."""
    SUBMIXER = "submixer"
    """Perceptrons along the tokens and along the channels, in turn."""
    SUBGVP = "subgvp"
    """Messages of scalars and vectors between tokens that are near in space."""
    SUBFORMER_GVP = "subformer-gvp"
    """SUBGVP, then SUBFORMER."""
    SUBMIXER_GVP = "submixer-gvp"
    """SUBGVP, then SUBMIXER."""
    EQUIVARIANT_ATTENTION = "equivariant-attention"
    """A transformer whose attention weighs scalars and vectors alike."""


class Merging(str, Enum):
    """How several tokens become one before the mixer."""

    NONE = "none"
    SCALAR = "scalar"
    """The scalars of the tokens side by side, through a perceptron; vectors end here."""
    EQUIVARIANT = "equivariant"
    """A linear map of the scalars and one of the vectors."""


class Pooling(str, Enum):
    """How the tokens become one."""

    MEAN = "mean"
    SUM = "sum"
    TOKEN = "token"
    """SubFormer's learned token; with other mixers the global token, and where there is none the first."""
    FLATTEN = "flatten"
    """All of them side by side: for few tokens."""


class GraphConvolution(str, Enum):
    """Messages that a residue receives from its neighbours in space before the tokens are merged."""

    NONE = "none"
    PLAIN = "plain"
    """The sum of the neighbours."""
    GEOMETRIC = "geometric"
    """Neighbours weighed by how the vectors of both lie to each other."""
    CHIRAL = "chiral"
    """As GEOMETRIC, with a triple product that changes sign in a mirror."""


class LocalAttention(str, Enum):
    """What the queries and keys of the equivariant attention are made of."""

    LINEAR = "linear"
    """A linear map of the token itself."""
    GEOMETRIC = "geometric"
    """A convolution along the sequence that weighs the neighbours by how their vectors lie to its own."""
    CHIRAL = "chiral"
    """As GEOMETRIC, with a triple product that changes sign in a mirror."""


GRAPH_MIXERS = (Mixer.SUBGVP, Mixer.SUBFORMER_GVP, Mixer.SUBMIXER_GVP)
ATTENTION_MIXERS = (Mixer.SUBFORMER, Mixer.SUBFORMER_GVP, Mixer.EQUIVARIANT_ATTENTION)
MOST_GLOBAL_TOKENS = 512
"""With more, the first matrix of its perceptron, one row per pair, would dwarf the rest of the network."""


@dataclass(frozen=True)
class CVNetworkSpec:
    """A network from the tokens of a frame to a few numbers that do not change when the molecule turns or moves."""

    kind: ClassVar[str] = "cv-network"
    """Name of the kind in the JSON form."""

    num_tokens: int
    input_width: int
    """Scalars, and vectors, of a token: the width of the encoder."""
    num_outputs: int = 2
    mixer: Mixer = Mixer.SUBMIXER
    width: int = 64
    num_layers: int = 2
    num_heads: int = 8
    dropout: float = 0.1
    token_hidden: int | None = None
    """Hidden width of SubMixer's perceptron along the tokens; None: twice the number of tokens, at most 512."""
    chiral: bool = False
    """Whether a triple product of each token's vectors, which changes sign in a mirror, is added to its scalars."""
    merging: Merging = Merging.NONE
    window: int = 1
    """Consecutive tokens that become one; 0: all tokens of a chain. A window ends with its chain."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Tokens that become one, in place of windows; each token in one group."""
    chains: tuple[int, ...] = ()
    """The chain of each token; empty: all tokens are one chain. No window and no group goes across chains."""
    global_token: bool = False
    """One more token, made of the distances of all pairs of tokens."""
    graph_cutoff: float = 0.8
    """Tokens nearer than this are neighbours, nm: to the graph convolution, and to mixers that pass messages, for which
    merged tokens are at the mean of their members and further apart."""
    graph_convolution: GraphConvolution = GraphConvolution.NONE
    local_attention: LocalAttention = LocalAttention.LINEAR
    pooling: Pooling = Pooling.MEAN
    head_layers: int = 2
    """Linear maps of the perceptron that makes the outputs."""
    softmax: bool = False
    """Outputs are memberships: positive, with sum 1."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, scores. Never read by the network."""

    def __post_init__(self) -> None:
        one_of(self, Mixer, "mixer")
        one_of(self, Merging, "merging")
        one_of(self, Pooling, "pooling")
        one_of(self, GraphConvolution, "graph_convolution")
        one_of(self, LocalAttention, "local_attention")
        object.__setattr__(self, "groups", tuple(tuple(int(token) for token in group) for group in self.groups))
        object.__setattr__(self, "chains", tuple(int(chain) for chain in self.chains))
        self._check_numbers()
        self._check_merging()
        self._check_together()

    @property
    def merged_tokens(self) -> tuple[tuple[int, ...], ...]:
        """For each token after merging, the tokens it is made of."""
        if self.groups:
            return self.groups
        if self.merging is Merging.NONE:
            return tuple((token,) for token in range(self.num_tokens))
        return windows_of(self.chains or (0,) * self.num_tokens, self.window)

    def _check_numbers(self) -> None:
        at_least(self, 1, "num_tokens", "input_width", "num_outputs", "num_layers", "num_heads", "head_layers")
        at_least(self, 2, "width")
        at_least(self, 0, "window")
        whole(self, 1, "token_hidden")
        share(self, "dropout")
        positive(self, "graph_cutoff")
        if self.chains and len(self.chains) != self.num_tokens:
            raise SpecError(
                f"CVNetworkSpec.chains names the chains of {len(self.chains)} tokens, there are {self.num_tokens}"
            )

    def _check_merging(self) -> None:
        if self.merging is Merging.NONE and (self.groups or self.window != 1):
            raise SpecError(
                f"CVNetworkSpec.window is {self.window} with {len(self.groups)} groups, but merging is 'none': "
                "choose 'scalar' or 'equivariant', or leave both away"
            )
        if self.groups and self.window != 1:
            raise SpecError(f"CVNetworkSpec has groups and a window of {self.window}: choose one way of merging")
        if not self.groups:
            return
        times = [0] * self.num_tokens
        for number, group in enumerate(self.groups):
            for token in group:
                if not 0 <= token < self.num_tokens:
                    raise SpecError(f"group {number} has token {token}: there are {self.num_tokens}, counted from 0")
                times[token] += 1
            if not group:
                raise SpecError(f"group {number} is empty: give at least one token")
            if self.chains and len({self.chains[token] for token in group}) > 1:
                raise SpecError(f"group {number} has tokens of several chains: tokens of one chain alone are merged")
        for token, count in enumerate(times):
            if count != 1:
                raise SpecError(f"token {token} is in {count} groups: put each token into one")

    def _check_together(self) -> None:
        if self.mixer in ATTENTION_MIXERS and self.width % self.num_heads:
            raise SpecError(
                f"CVNetworkSpec.width is {self.width}: with the mixer {self.mixer.value!r} give a multiple of "
                f"num_heads ({self.num_heads})"
            )
        if self.width % 2:
            raise SpecError(f"CVNetworkSpec.width is {self.width}: give an even number")
        if self.merging is Merging.SCALAR and self.mixer in (*GRAPH_MIXERS, Mixer.EQUIVARIANT_ATTENTION):
            raise SpecError(
                f"the mixer {self.mixer.value!r} needs vectors, which scalar merging ends: choose merging='equivariant'"
            )
        if self.local_attention is not LocalAttention.LINEAR and self.mixer is not Mixer.EQUIVARIANT_ATTENTION:
            raise SpecError(
                f"CVNetworkSpec.local_attention is {self.local_attention.value!r}: it belongs to the mixer "
                f"'equivariant-attention', not to {self.mixer.value!r}"
            )
        if self.softmax and self.num_outputs < 2:
            raise SpecError("CVNetworkSpec.softmax with 1 output, which would always be 1: give at least 2 outputs")
        if self.global_token and not 2 <= len(self.merged_tokens) <= MOST_GLOBAL_TOKENS:
            raise SpecError(
                f"a global token of {len(self.merged_tokens)} tokens: it is made of all their pairs, for 2 to "
                f"{MOST_GLOBAL_TOKENS} tokens; merge more of them, or leave it away"
            )


def windows_of(chains: Sequence[int], window: int) -> tuple[tuple[int, ...], ...]:
    """Runs of up to `window` consecutive tokens of one chain (0: of any length); the last of a chain may be shorter."""
    windows: list[list[int]] = []
    for token, chain in enumerate(chains):
        full = not windows or (window > 0 and len(windows[-1]) == window)
        if full or chains[windows[-1][0]] != chain:
            windows.append([])
        windows[-1].append(token)
    return tuple(tuple(members) for members in windows)
