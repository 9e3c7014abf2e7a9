"""Windows of residues: the atoms of each residue and of its neighbours along the sequence, as a graph of their own.

Every residue has one window, and its atoms take their features from that one. A selected atom is therefore seen in the
windows of several residues, but described in its own alone. What lies outside a window does not enter, so the cost is
linear in the number of residues, and windows can be worked on in any order and place.

A window goes along bonds, not along numbers: it ends with the chain, and where a loop is missing. Caps are residues of
their chain; ligands, ions and waters have windows of themselves. Bonds that close rings or bridges (disulphides, the
ends of a cyclic peptide) join nothing.

Source: Pengmei et al., "Pushing the limits of all-atom geometric graph neural networks", ICLR 2025, OpenReview
4S2L519nIX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.features.featurizer_settings import Context, GraphContext

if TYPE_CHECKING:
    import mdtraj

T = TypeVar("T")
_SULPHUR = 16


@dataclass(frozen=True)
class GraphBlock:
    """Graphs that go through the encoder together; of several frames, all frames of a block do."""

    rows: Tensor
    """(copies,) row among the selected atoms of each atom of the graphs, graph by graph."""
    graph: Tensor
    """(copies,) the graph of each, from 0, non-decreasing."""
    sizes: Tensor
    """(graphs,) number of copies of each."""
    described: Tensor
    """(described,) which copies give an atom its features."""
    atoms: Tensor
    """(described,) rows of these atoms among the selected ones."""

    @property
    def num_copies(self) -> int:
        return int(self.rows.size(0))

    @property
    def num_graphs(self) -> int:
        return int(self.sizes.size(0))

    def to(self, device: torch.device | str) -> GraphBlock:
        moved = (one.to(device) for one in (self.rows, self.graph, self.sizes, self.described, self.atoms))
        rows, graph, sizes, described, atoms = moved
        return GraphBlock(rows, graph, sizes, described, atoms)

    def centred(self, positions: Tensor) -> Tensor:
        """(frames, copies, 3) of positions (frames, num_selected, 3), each graph about its own centroid.

        Far from the origin float32 would not resolve what is between neighbours; and so nothing of what is outside a
        window enters it, not even by rounding.
        """
        if self.num_graphs == 1:
            copies = positions if len(self.rows) == positions.size(1) else positions.index_select(1, self.rows)
            return copies - copies.mean(dim=1, keepdim=True)
        copies = positions.index_select(1, self.rows)
        sums = copies.new_zeros((len(copies), self.num_graphs, 3)).index_add_(1, self.graph, copies)
        centroids = sums / self.sizes[:, None]
        return copies - centroids.index_select(1, self.graph)

    def graphs_of(self, frames: int) -> Tensor:
        """(frames * copies,) the graph of each copy, all frames one after the other."""
        first = torch.arange(0, frames * self.num_graphs, self.num_graphs, device=self.graph.device)
        return (first[:, None] + self.graph).reshape(-1)


def whole_graph(num_selected: int) -> GraphBlock:
    """All selected atoms as one graph."""
    every = torch.arange(num_selected)
    return GraphBlock(every, torch.zeros_like(every), torch.tensor([num_selected]), every, every)


@dataclass(frozen=True)
class ResidueWindows:
    """The windows of a selection, one for each residue that has a selected atom."""

    context: GraphContext
    rows: tuple[np.ndarray, ...]
    """Rows of the atoms of each window among the selected ones, ascending."""
    own: tuple[np.ndarray, ...]
    """Masks over the atoms of each window: those of the residue that it was made for."""

    @classmethod
    def of(cls, topology: mdtraj.Topology, selected: np.ndarray, window: int | None = None) -> ResidueWindows:
        """Make the windows of the residues of a topology.

        Args:
            topology: of the whole System, with bonds.
            selected: (num_selected,) indices of the atoms that the encoder sees, ascending; residues count, and are
                joined, whether they have selected atoms or not.
            window: residues on either side; None: the default.
        Raises:
            SpecError: for a window that is no number of residues.
            TopologyError: if the topology has no bonds, and so no neighbours.
        """
        context = GraphContext(Context.WINDOW, window)
        assert context.window is not None
        residue_of = np.array([topology.atom(int(index)).residue.index for index in selected])
        if context.window > 0 and topology.n_bonds == 0 and len(residue_of) > len(np.unique(residue_of)):
            raise TopologyError(
                "the topology has no bonds, which say what residues are neighbours in a window: give one that has them "
                "(mdtraj: topology.create_standard_bonds(); OpenMM: createStandardBonds()), or window=0"
            )
        segment_of = residue_segments(topology)
        order = np.argsort(residue_of, kind="stable")
        residues, starts = np.unique(residue_of[order], return_index=True)
        members = dict(zip(residues.tolist(), np.split(order, starts[1:]), strict=True))
        rows, own = [], []
        for residue in residues.tolist():
            near = range(max(0, residue - context.window), min(len(segment_of), residue + context.window + 1))
            inside = [one for one in near if segment_of[one] == segment_of[residue] and one in members]
            atoms = np.sort(np.concatenate([members[one] for one in inside]))
            rows.append(atoms)
            own.append(np.flatnonzero(residue_of[atoms] == residue))
        lengths = np.bincount(segment_of)[np.unique(segment_of[residues])]
        return cls(GraphContext(Context.WINDOW, context.window, tuple(lengths.tolist())), tuple(rows), tuple(own))

    @property
    def num_copies(self) -> int:
        """Atoms of all windows together."""
        return sum(map(len, self.rows))

    def blocks(self, most_copies: int) -> Iterator[GraphBlock]:
        """Consecutive windows of up to so many atoms together, at least one window each."""
        start, copies = 0, 0
        for stop, rows in enumerate(self.rows):
            if copies and copies + len(rows) > most_copies:
                yield self._block(start, stop)
                start, copies = stop, 0
            copies += len(rows)
        yield self._block(start, len(self.rows))

    def _block(self, start: int, stop: int) -> GraphBlock:
        rows, own = self.rows[start:stop], self.own[start:stop]
        sizes = np.array([len(one) for one in rows])
        first = np.cumsum(sizes) - sizes
        return GraphBlock(
            rows=torch.from_numpy(np.concatenate(rows)),
            graph=torch.arange(len(rows)).repeat_interleave(torch.from_numpy(sizes)),
            sizes=torch.from_numpy(sizes),
            described=torch.from_numpy(np.concatenate([one + shift for one, shift in zip(own, first, strict=True)])),
            atoms=torch.from_numpy(np.concatenate([one[places] for one, places in zip(rows, own, strict=True)])),
        )


def residue_segments(topology: mdtraj.Topology) -> np.ndarray:
    """(num_residues,) number of the unbroken run of residues that each belongs to, non-decreasing.

    A run goes on from one residue to the next of its chain where a bond joins them; one between two sulphurs does not
    count, for it is a bridge and not the backbone.
    """
    joined = np.zeros(topology.n_residues, dtype=bool)
    for first, second in topology.bonds:
        one, other = sorted((first.residue.index, second.residue.index))
        bridge = first.element.number == second.element.number == _SULPHUR
        if other == one + 1 and not bridge and first.residue.chain.index == second.residue.chain.index:
            joined[other] = True
    return np.cumsum(~joined) - 1


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
