"""Attention whose memory grows with the number of tokens, not with its square: the one file that knows the kernels."""

# No `from __future__ import annotations` here: TorchScript compiles these functions.
import importlib
import importlib.util

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

LARGEST_FLASH_HEAD = 256
"""Channels of a head that the flash-attn package takes."""


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale * query key^T) value, without the matrix of the weights.

    The fused kernels want heads of one width: query and key are filled up with zeros, which changes no product. On
    the CPU PyTorch then takes its own flash kernel, in training too and in float64, as long as no dropout is asked of
    it: with dropout it keeps the whole matrix, so there is none here. Half precision on CUDA goes through the
    flash-attn package where that is installed, else through whatever fused kernel PyTorch finds.

    Args:
        query, key: (B, heads, T, D).
        value: (B, heads, T, E), with E at least D.
        scale: usually 1 / sqrt(D).
    Returns:
        (B, heads, T, E), differentiable once.
    Source: Vaswani et al., NeurIPS 2017, eq. 1, arXiv 1706.03762; Dao et al., NeurIPS 2022, arXiv 2205.14135.
    """
    missing = value.shape[-1] - query.shape[-1]
    if missing > 0:
        query = torch.nn.functional.pad(query, [0, missing])
        key = torch.nn.functional.pad(key, [0, missing])
    if not torch.jit.is_scripting() and _flash_attn_serves(value):
        return _flash_attn(query, key, value, scale)
    return scaled_dot_product_attention(query, key, value, scale=scale)


def attention_weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """(B, heads, T, T) the weights themselves, for pictures of few tokens."""
    return torch.softmax(scale * query @ key.transpose(-2, -1), dim=-1)


def split_heads(channels: Tensor, num_heads: int) -> Tensor:
    """(B, T, heads * D) -> (B, heads, T, D)."""
    return channels.unflatten(2, [num_heads, channels.shape[2] // num_heads]).transpose(1, 2)


def join_heads(heads: Tensor) -> Tensor:
    """(B, heads, T, D) -> (B, T, heads * D)."""
    return heads.transpose(1, 2).flatten(2)


@torch.jit.unused
def _flash_attn_serves(value: Tensor) -> bool:
    if not value.is_cuda or value.dtype not in (torch.float16, torch.bfloat16):
        return False
    return value.shape[-1] <= LARGEST_FLASH_HEAD and importlib.util.find_spec("flash_attn") is not None


@torch.jit.unused
def _flash_attn(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    kernel = importlib.import_module("flash_attn").flash_attn_func
    tokens_first = [tensor.transpose(1, 2) for tensor in (query, key, value)]
    return kernel(*tokens_first, softmax_scale=scale).transpose(1, 2)
