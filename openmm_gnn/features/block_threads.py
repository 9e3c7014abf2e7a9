"""Blocks of graphs that do not hear of each other, worked on by several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def for_each(work: Callable[[T], None], blocks: Sequence[T], device: torch.device) -> None:
    """Call `work` with every block; on a CPU by as many threads as torch has here, each with one thread of torch's.

    Operations on a block are small, and torch's own threads meet after each of them: those that take blocks of their
    own need not wait for one another. With fewer blocks than threads, or on a GPU, the blocks are worked on in turn.

    Raises:
        Whatever `work` raises, of the first block in order that does.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(blocks) < threads:
        for block in blocks:
            work(block)
        return
    inference = torch.is_inference_mode_enabled()

    def alone(block: T) -> None:
        with torch.inference_mode(inference):
            work(block)

    try:
        with ThreadPoolExecutor(threads, "openmm_gnn blocks", torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(alone, blocks):
                pass
    finally:
        torch.set_num_threads(threads)  # threads that start later take over what was last set anywhere
