"""A neighbour list that remembers: pairs within cutoff + skin, found anew only when atoms have moved far enough."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import threading
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import NeighborOverflowError
from openmm_gnn.kernels.neighbor_pairs import available_threads, pair_vectors, safe_distances, wants_gradient

# Slots of `status` and bits of its errors, as in csrc/neighbors/neighbor_pairs.h. TorchScript reads no global
# variable, so the scripted methods name slots by number.
STATUS_REQUIRED, STATUS_ERRORS, STATUS_BAD_ATOM, STATUS_SLOTS = 1, 4, 6, 64
ERROR_OVERFLOW, ERROR_POSITIONS, ERROR_BOX, ERROR_IMAGES, ERROR_STORED = 1, 2, 4, 8, 16

_ALLOCATION = threading.Lock()


class NeighborList(nn.Module):
    """Pairs of atoms within a cutoff, with vectors and distances, at every step of a simulation.

    It keeps the pairs within cutoff + skin of reference positions and rebuilds them when an atom has moved more than
    half the skin, the box has changed, or the number of atoms, dtype or device has. Moves by lattice vectors, which
    OpenMM makes to whole molecules, cost nothing. Works in eager mode and in TorchScript, also frozen; the state is
    allocated in the first call, so one exported file serves any number of atoms.

    On the CPU the result holds exactly the pairs within the cutoff. On CUDA, or with static_shape, it has as many
    columns as the list can hold: pairs between cutoff and cutoff + skin are in it, and unused columns have indices
    -1 and a distance of twice (cutoff + skin), so a cutoff function makes both vanish. Nothing waits for the device
    there: if the list overflows or a position is not finite, all distances become NaN, and `check` says why.

    Args:
        cutoff: pairs with `|r_ij| < cutoff`.
        skin: pairs are stored up to cutoff + skin; wider means fewer rebuilds and more pairs to look through.
        max_neighbors: most of the capacity, as the mean number of stored pairs per atom, each pair counted once. Where
            the shape is fixed every slot costs time at each step, so a large list (half a million slots) makes room for
            a third more pairs than its first call finds, and no more.
        full: give both (i, j) and (j, i); otherwise each pair once.
        static_shape: give the padded form on the CPU too.
    """

    if TYPE_CHECKING:  # TorchScript reads annotations too, and cannot read these
        reference_positions: Tensor
        reference_box: Tensor
        stored_pairs: Tensor
        stored_shifts: Tensor
        status: Tensor

    def __init__(
        self, cutoff: float, skin: float = 0.1, max_neighbors: int = 96, full: bool = False, static_shape: bool = False
    ) -> None:
        super().__init__()
        if not cutoff > 0:
            raise ValueError(f"cutoff is {cutoff}: give a length above 0")
        if not skin >= 0:
            raise ValueError(f"skin is {skin}: give a length, 0 or more")
        if max_neighbors < 1:
            raise ValueError(f"max_neighbors is {max_neighbors}: give at least 1")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.max_neighbors = int(max_neighbors)
        self.full = bool(full)
        self.static_shape = bool(static_shape)
        # Outside the state dict: what these hold belongs to a run, not to the model.
        self.register_buffer("reference_positions", torch.empty((0, 3)), persistent=False)
        self.register_buffer("reference_box", torch.zeros((3, 3)), persistent=False)
        self.register_buffer("stored_pairs", torch.empty((2, 0), dtype=torch.int32), persistent=False)
        self.register_buffer("stored_shifts", torch.empty((0, 3), dtype=torch.int32), persistent=False)
        self.register_buffer("status", torch.zeros(STATUS_SLOTS, dtype=torch.int64), persistent=False)

    @torch.jit.unused
    def extra_repr(self) -> str:
        """What its repr says."""
        pairs = "both directions" if self.full else "each pair once"
        stored = f"up to {self.max_neighbors} pairs per atom, {len(self.reference_positions)} atoms so far"
        return f"cutoff={self.cutoff:g}, skin={self.skin:g}, {pairs}, {stored}"

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs at these positions.

        Args:
            positions: (num_atoms, 3) float32 or float64, in the unit of the cutoff; inside or outside the box.
            box_vectors: (3, 3) of the same dtype, rows a, b, c of any cell with volume; None: open boundary.
        Returns:
            pairs (2, num_pairs) int64; vectors (num_pairs, 3) r_ij from i to j; distances (num_pairs,). Vectors and
            distances can be differentiated twice, in positions and box_vectors.
        Raises:
            NeighborOverflowError: more pairs than the list can hold (RuntimeError in TorchScript).
            RuntimeError: positions that are not finite, a box without volume, wrong shapes or dtypes.
        """
        box = positions.new_empty([0, 3]) if box_vectors is None else box_vectors
        geometry = not wants_gradient(positions, box)
        trim = not (self.static_shape or positions.is_cuda)
        if torch.jit.is_scripting():
            self._allocate(positions, box)
            pairs, shifts, vectors, distances = torch.ops.openmm_gnn.update_neighbor_list(
                positions.detach(), box.detach(), self.cutoff, self.skin, self.full, geometry, trim, 0,
                self.reference_positions, self.reference_box, self.stored_pairs, self.stored_shifts, self.status,
            )  # fmt: skip
        else:
            pairs, shifts, vectors, distances = self._update(positions.detach(), box.detach(), geometry, trim)
        if not geometry:
            if trim:
                vectors = pair_vectors(positions, pairs, shifts, box)
                distances = safe_distances(vectors)
            else:
                vectors, distances = self._padded_geometry(positions, pairs, shifts, box)
        if not trim:
            distances = distances.masked_fill(self.status[4] != 0, float("nan"))  # slot 4: errors
        return pairs, vectors, distances

    def _capacity(self, positions: Tensor, box: Tensor) -> int:
        """How many pairs to make room for. Waits for the device, as the first call may."""
        most = positions.shape[0] * self.max_neighbors * (2 if self.full else 1)
        if most < 524288 or not (self.static_shape or positions.is_cuda):
            return most
        found = torch.ops.openmm_gnn.neighbor_pairs(
            positions.detach(), box.detach(), self.cutoff + self.skin, self.full, False, 0
        )
        return min(most, found[0].shape[1] * 4 // 3 + 1)

    def _allocate(self, positions: Tensor, box: Tensor) -> None:
        """Empty state for this number of atoms, dtype and device, unless that is what the list has."""
        kept, num_atoms = self.reference_positions, positions.shape[0]
        if kept.shape[0] == num_atoms and kept.dtype == positions.dtype and kept.device == positions.device:
            return
        capacity = self._capacity(positions, box)
        device = positions.device
        self.reference_positions = torch.zeros((num_atoms, 3), dtype=positions.dtype, device=device)
        self.reference_box = torch.zeros((3, 3), dtype=positions.dtype, device=device)
        self.stored_pairs = torch.zeros((2, capacity), dtype=torch.int32, device=device)
        self.stored_shifts = torch.zeros((capacity, 3), dtype=torch.int32, device=device)
        self.status = torch.zeros(64, dtype=torch.int64, device=device)

    def _padded_geometry(self, positions: Tensor, pairs: Tensor, shifts: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable vectors and distances; unused columns get a constant beyond the cutoff, without gradient."""
        unused = pairs[0] < 0
        vectors = pair_vectors(positions, pairs.clamp(min=0), shifts, box)
        far = torch.zeros_like(vectors)
        far[:, 0] = 2 * (self.cutoff + self.skin)
        vectors = torch.where(unused[:, None], far, vectors)
        return vectors, safe_distances(vectors)

    @torch.jit.unused
    def _update(
        self, positions: Tensor, box: Tensor, geometry: bool, trim: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The operator in eager mode, also for threads that share the list, with the package's error for an overflow.

        A call takes all five tensors of one state, of which the operator serves one call at a time.
        """
        with _ALLOCATION:
            self._allocate(positions, box)
            state = (
                self.reference_positions,
                self.reference_box,
                self.stored_pairs,
                self.stored_shifts,
                self.status,
            )
        try:
            return torch.ops.openmm_gnn.update_neighbor_list(
                positions, box, self.cutoff, self.skin, self.full, geometry, trim, available_threads(), *state
            )
        except RuntimeError as error:
            if "raise max_neighbors" in str(error):
                raise NeighborOverflowError(str(error)) from None
            raise

    @torch.jit.unused
    def check(self) -> None:
        """Raises what went wrong on a CUDA device since the state was allocated. Waits for the device.

        Raises:
            NeighborOverflowError: more pairs than the list can hold.
            RuntimeError: positions that are not finite, a box without volume, or stored pairs of another list.
        """
        values = self.status.tolist()
        errors = values[STATUS_ERRORS]
        num_atoms, capacity = self.reference_positions.shape[0], self.stored_pairs.shape[1]
        if errors & ERROR_POSITIONS:
            atom = values[STATUS_BAD_ATOM]
            raise RuntimeError(f"the position of atom {atom} is not finite or is a million box lengths away")
        if errors & ERROR_BOX:
            raise RuntimeError("box_vectors span no volume: give three finite, independent vectors")
        if errors & ERROR_IMAGES:
            raise RuntimeError(
                "the cutoff reaches over too many images of the box, or too many atoms: reduce it or enlarge the box"
            )
        if errors & ERROR_STORED:
            raise RuntimeError(
                f"stored_pairs or status are of another list than one of {num_atoms} atoms and {capacity} pairs: make "
                "a new NeighborList"
            )
        if errors & ERROR_OVERFLOW:
            per_atom = max(num_atoms, 1) * (2 if self.full else 1)
            needed = -(-values[STATUS_REQUIRED] // per_atom)
            remedy = f"raise max_neighbors to at least {needed}"
            if needed <= self.max_neighbors:
                remedy = (
                    "the atoms stand closer than at the first call, for which it made room; begin a new run from here"
                )
            raise NeighborOverflowError(
                f"found {values[STATUS_REQUIRED]} neighbour pairs of {num_atoms} atoms within cutoff + skin = "
                f"{self.cutoff + self.skin:g}, capacity {capacity}: {remedy}"
            )

    @torch.jit.export
    def num_rebuilds(self) -> int:
        """How often the pairs have been found anew since the state was allocated."""
        return int(self.status[2])

    @torch.jit.export
    def num_calls(self) -> int:
        """How often the list was asked since the state was allocated."""
        return int(self.status[3])
