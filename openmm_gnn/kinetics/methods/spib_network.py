"""The network of SPIB: an encoder to a plane, a prior around representative frames, a decoder to future states.

Source: Wang and Tiwary, J. Chem. Phys. 154, 134111 (2021), doi:10.1063/5.0038198, arXiv 2011.10127; the prior: Tomczak
and Welling, "VAE with a VampPrior", AISTATS 2018, arXiv 1705.07120.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError


class SpibLoss(NamedTuple):
    """Weighted means over the frames."""

    total: Tensor
    """reconstruction + beta * divergence"""
    reconstruction: Tensor
    """Cross entropy of the future states."""
    divergence: Tensor
    """log p(z | x) - log p(z) at one sample z, an estimate of the Kullback-Leibler divergence."""


class SpibNetwork(nn.Module):
    """p(z | x) = N(encoder(x), exp(log_variance)); p(z) is a mixture of p(z | representative frames)."""

    representatives: Tensor
    representative_coordinates: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        representatives: Tensor,
        representative_coordinates: Tensor,
        latent_dim: int = 2,
        decoder_width: int = 32,
    ) -> None:
        """
        Args:
            encoder: maps tokens and coordinates of frames to (frames, latent_dim); a CVNetwork.
            representatives: (states, ...) the tokens of one frame for each state.
            representative_coordinates: (states, ...) the coordinates of those frames.
        Raises:
            SpecError: if there are fewer than 2 states.
        """
        super().__init__()
        num_states = len(representatives)
        if num_states < 2 or latent_dim < 1:
            raise SpecError(f"{num_states} states in {latent_dim} dimensions: give at least 2 states and 1 dimension")
        self.encoder = encoder
        # The outputs of a new encoder are small: noise of variance 1 would bury them for hundreds of steps.
        self.log_variance = nn.Parameter(torch.full((latent_dim,), -3.0))
        self.prior_logits = nn.Parameter(torch.zeros(num_states))
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, decoder_width),
            nn.ReLU(),
            nn.Linear(decoder_width, decoder_width),
            nn.ReLU(),
            nn.Linear(decoder_width, num_states),
        )
        self.register_buffer("representatives", representatives)
        self.register_buffer("representative_coordinates", representative_coordinates)

    @property
    def num_states(self) -> int:
        return len(self.prior_logits)

    def encode(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """(B, latent_dim) means of p(z | x)."""
        return self.encoder(tokens, coordinates)

    def sample(self, means: Tensor) -> Tensor:
        """A sample of z for each mean."""
        return means + torch.exp(self.log_variance / 2) * torch.randn_like(means)

    def decode(self, z: Tensor) -> Tensor:
        """(B, states) log probabilities of the states a lag later."""
        return torch.log_softmax(self.decoder(z), dim=1)

    def log_posterior(self, z: Tensor, means: Tensor) -> Tensor:
        """(...,) log p(z | x), up to the constant that log_prior leaves out too."""
        return -0.5 * (self.log_variance + (z - means).square() / self.log_variance.exp()).sum(dim=-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """(B,) log sum_k w_k p(z | representative k), up to the constant that log_posterior leaves out too."""
        means = self.encode(self.representatives, self.representative_coordinates)
        components = self.log_posterior(z[:, None], means[None])
        return torch.logsumexp(components + torch.log_softmax(self.prior_logits, dim=0), dim=1)

    def loss(self, means: Tensor, z: Tensor, future: Tensor, beta: float, weights: Tensor | None = None) -> SpibLoss:
        """The information bottleneck: how well z predicts the future, against what it keeps of x.

        Args:
            means, z: (B, latent_dim) means of p(z | x), and a sample of it.
            future: (B, states) one-hot states a lag later, or probabilities.
            beta: weight of what z keeps.
            weights: (B,) weights of the frames; None: all equal.
        """
        reconstruction = -(future * self.decode(z)).sum(dim=1)
        divergence = self.log_posterior(z, means) - self.log_prior(z)
        shares = torch.full_like(divergence, 1 / len(z)) if weights is None else weights / weights.sum()
        cross_entropy, information = (shares * reconstruction).sum(), (shares * divergence).sum()
        return SpibLoss(cross_entropy + beta * information, cross_entropy, information)

    def states_of(self, means: Tensor) -> Tensor:
        """(B,) the most likely state a lag later."""
        return self.decode(means).argmax(dim=1)

    @torch.no_grad()
    def keep_states(self, kept: Tensor, representatives: Tensor, representative_coordinates: Tensor) -> None:
        """Drop all states but these, and take new representative frames for them.

        Args:
            kept: (states left,) increasing numbers of the states; at least 2.
        """
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        narrower = nn.Linear(last.in_features, len(kept)).to(last.weight)
        narrower.weight.copy_(last.weight[kept])
        narrower.bias.copy_(last.bias[kept])
        self.decoder[-1] = narrower
        self.prior_logits = nn.Parameter(self.prior_logits[kept].clone())
        self.representatives = representatives
        self.representative_coordinates = representative_coordinates
