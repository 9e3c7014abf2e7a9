"""Positions of a System in, features of its tokens out: the one place where nm become the encoder's length unit."""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.boxes import box_width, can_be_box, narrow_box
from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.units import nanometers
from openmm_gnn.features.covalent_bonds import atom_name, warn_of_open_chains
from openmm_gnn.features.featurizer_settings import Context, FeaturizerSettings, GraphContext
from openmm_gnn.features.residue_windows import GraphBlock, ResidueWindows, for_each, whole_graph
from openmm_gnn.features.selection import check_elements, select_atoms
from openmm_gnn.features.token_table import Coordinates, TokenTable, atom_tokens, group_tokens, residue_tokens
from openmm_gnn.features.topologies import Elements, as_mdtraj, topology_hash
from openmm_gnn.features.whole_molecules import WholeMolecules
from openmm_gnn.kernels.library import usable_device
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_hash, known_elements
from openmm_gnn.networks.weights import in_form, load_encoder

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
BATCH_ATOMS = {"cpu": 512, "cuda": 32768}
"""Atoms of the graphs that go through the encoder together: more needs more memory and saves no more time."""


class Tokens(str, Enum):
    """What a token is, where no groups are given."""

    RESIDUE = "residue"
    ATOM = "atom"


class Reduction(str, Enum):
    """How the features of a token's atoms become one."""

    SUM = "sum"
    MEAN = "mean"


class Featurizer:
    """Features of the tokens of a topology, from an encoder.

    ```python
    featurizer = Featurizer("visnet_l6_h64_rbf64_r75.pth", simulation.topology)
    tokens = featurizer.features(positions, box_vectors)  # (tokens, 4, width)
    ```

    With box vectors, molecules are made whole along their bonds, and the encoder sees every neighbour through the faces
    of the box, so features do not depend on the image in which anything is written. Only the selected atoms (and those
    on the bonds between them) are read: water around them costs nothing.
    """

    def __init__(
        self,
        encoder: Encoder | str | os.PathLike[str],
        topology: Any,
        selection: str | None = FeaturizerSettings.selection,
        tokens: str | Sequence[Sequence[int]] = FeaturizerSettings.tokens,
        reduction: str = FeaturizerSettings.reduction,
        neighbor_rule: str | None = FeaturizerSettings.neighbor_rule,
        dtype: str = FeaturizerSettings.dtype,
        device: str | torch.device = FeaturizerSettings.device,
        coordinates: str = FeaturizerSettings.coordinates,
        context: str = FeaturizerSettings.context,
        window: int | None = FeaturizerSettings.window,
        elements: Elements = FeaturizerSettings.elements,
    ) -> None:
        """
        Args:
            encoder: an encoder, or a path or name for `load_encoder`.
            topology: of the whole System, openmm.app.Topology or mdtraj.Topology.
            tokens: as in `FeaturizerSettings`, or groups of indices of selected atoms.
            selection, reduction, neighbor_rule, dtype, device, coordinates, context, window, elements: see
                `FeaturizerSettings`.
        Raises:
            SpecError: for an argument that means nothing, or a selection of nothing.
            BackendError: for a device that is not here.
            TopologyError: for virtual sites, elements that are unknown or that the encoder does not know, missing
                alpha carbons, and windows without bonds.
        """
        self.selection = selection
        self.reduction = _choice(Reduction, reduction, "reduction")
        self.dtype = dtype
        if dtype not in _DTYPES:
            raise SpecError(f"dtype is {dtype!r}: give one of {list(_DTYPES)}")
        self.device = usable_device(device)
        self._name, given = _loaded(encoder, neighbor_rule)
        self.encoder_hash = encoder_hash(given)
        self.spec = given.spec
        self.topology = as_mdtraj(topology, elements)
        self.num_particles = self.topology.n_atoms
        selected = select_atoms(self.topology, selection)
        self.topology_hash = topology_hash(self.topology, selected)
        warn_of_open_chains(self.topology, selected)
        check_elements(self.topology, selected, known_elements(self.spec))
        self.tokens = _token_table(self.topology, selected, tokens, _choice(Coordinates, coordinates, "coordinates"))
        self._exact = torch.float64 if dtype == "float64" else torch.float32
        self._encoder = copy.deepcopy(given).to(device=self.device, dtype=_DTYPES[dtype]).eval()
        self._whole = WholeMolecules(self.topology, selected, self.device)
        self._batch_atoms = BATCH_ATOMS.get(self.device.type, BATCH_ATOMS["cuda"])
        self.context = GraphContext(_choice(Context, context, "context"), window)
        blocks = [whole_graph(len(selected))]
        if self.context.is_window:
            windows = ResidueWindows.of(self.topology, selected, self.context.window)
            self.context = windows.context
            blocks = list(windows.blocks(self._batch_atoms))
        self._blocks = [block.to(self.device) for block in blocks]
        self._per_nm = self.spec.per_nm
        self._narrow_box_told = self._extent_known = False
        self._numbers = torch.tensor(
            [self.topology.atom(int(index)).element.number for index in selected], device=self.device
        )
        rows = (row.to(self.device) for row in self.tokens.rows_among(selected))
        self._token_of, self._row_of, self._sizes, self._is_centroid, self._anchor_row = rows

    def __repr__(self) -> str:
        what = "heavy atoms" if self.selection is None else repr(self.selection)
        return (
            f"Featurizer({self._name or 'encoder'}: {self.num_tokens} tokens of {self.num_atoms} atoms ({what}) among "
            f"{self.num_particles} particles, features (tokens, 4, {self.width}), {self.dtype} on {self.device})"
        )

    @property
    def num_tokens(self) -> int:
        return self.tokens.num_tokens

    @property
    def num_atoms(self) -> int:
        """Atoms that the encoder sees."""
        return self._whole.num_selected

    @property
    def read_atoms(self) -> np.ndarray:
        """Indices of the particles that are read: the selected atoms, and those on the bonds between them."""
        return self._whole.atoms

    @property
    def width(self) -> int:
        return self.spec.width

    @property
    def frames_per_batch(self) -> int:
        """Frames that go through the encoder together; more at once are cut into batches."""
        return max(1, self._batch_atoms // sum(block.num_copies for block in self._blocks))

    def features(self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False) -> np.ndarray:
        """Features of the tokens of one frame or several.

        Args:
            positions: (num_particles, 3) or (frames, num_particles, 3), nm: array, tensor or Quantity, of the whole
                System, wrapped in any way.
            box_vectors: (3, 3) or (frames, 3, 3), nm, rows a, b, c in OpenMM's reduced form; None: no periodic box.
            of_read_atoms: the positions are those of `read_atoms` alone, in that order.
        Returns:
            (num_tokens, 4, width) or (frames, num_tokens, 4, width), float32, or float64 where `dtype` is; component 0
            is the scalars, 1 to 3 are x, y and z of the vectors.
        Raises:
            SpecError: for wrong shapes and a box without volume.
            TopologyError: if there is a box and the topology has no bonds.
            NonFiniteError: for a position or a feature that is not finite, naming the atom or token.
        """
        with torch.inference_mode():
            whole, box, many = self._whole_frames(positions, box_vectors, of_read_atoms)
            frames = self.frames_per_batch
            parts = [
                self._tokens_of(whole[start : start + frames], None if box is None else box[start : start + frames])
                for start in range(0, len(whole), frames)
            ]
            if not parts:
                return np.empty(
                    (0, self.num_tokens, 4, self.width), np.float64 if self.dtype == "float64" else np.float32
                )
            features = torch.cat(parts)
            self._check_features(features, many)
            result = features.cpu().numpy()
        return result if many else result[0]

    def coordinates(self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False) -> np.ndarray:
        """Where the tokens are: their anchors, (num_tokens, 3) or (frames, num_tokens, 3) float32, nm.

        With box vectors, molecules are whole and at their images nearest to the first one (by centroids), which stays
        where its first atom is. Arguments and errors are those of `features`.
        """
        with torch.inference_mode():
            whole, _, many = self._whole_frames(positions, box_vectors, of_read_atoms)
            sums = whole.new_zeros((len(whole), self.num_tokens, 3))
            sums.index_add_(1, self._token_of, whole[:, self._row_of])
            anchors = torch.where(self._is_centroid, sums / self._sizes, whole[:, self._anchor_row])
            result = anchors.float().cpu().numpy()
        return result if many else result[0]

    def describe(self) -> dict[str, Any]:
        """What the features are, ready for `json.dumps`: encoder, topology, selection, tokens, context and the rest."""
        return {
            "encoder": {"name": self._name, "hash": self.encoder_hash, "spec": json.loads(spec_to_json(self.spec))},
            "topology_hash": self.topology_hash,
            "selection": self.selection,
            "tokens": self.tokens.to_json(),
            "reduction": self.reduction.value,
            "dtype": self.dtype,
            **self.context.to_json(),
        }

    def _whole_frames(
        self, positions: Any, box_vectors: Any, of_read_atoms: bool
    ) -> tuple[Tensor, Tensor | None, bool]:
        """(frames, num_atoms, 3) and (frames, 3, 3), nm, float64, on the device; and whether several were given."""
        read, many = self._read(positions, of_read_atoms)
        if box_vectors is None:
            return read[:, : self.num_atoms], None, many
        box = _box_tensor(box_vectors).to(torch.float64)
        if box.shape not in ((3, 3), (1, 3, 3), (len(read), 3, 3)):
            raise SpecError(
                f"box vectors of shape {tuple(box.shape)} came with {len(read)} frames: give (3, 3), or one for each"
            )
        box = box.reshape(-1, 3, 3).expand(len(read), 3, 3).contiguous()
        self._check_boxes(box.cpu().numpy())  # before it goes to the device, which would have to be waited for
        box = box.to(self.device)
        whole = self._whole(read, box)
        if len(whole) and not self._extent_known:
            self._extent_known = True
            if (extent := self._whole.extent(whole[0], box[0])) > 1:
                warnings.warn(
                    f"a molecule is {extent:.2f} times as long as the periodic box, and lies on its own images: check "
                    "that the simulation had this box, which many files carry without one; None means that there is "
                    "no box (featurize --no-box)",
                    stacklevel=4,
                )
        return whole, box, many

    def _check_boxes(self, boxes: np.ndarray) -> None:
        """
        Raises:
            SpecError: if a frame's box vectors (frames, 3, 3) nm are none that the particles have room in.
        """
        if len(bad := np.flatnonzero(~can_be_box(boxes, self.num_particles))):
            raise SpecError(
                f"the box vectors of frame {bad[0]} are {boxes[bad[0]].tolist()} nm, which cannot be a box of "
                f"{self.num_particles} particles: give three rows a, b, c, or None where there is no periodic box"
            )
        if len(boxes) and not self._narrow_box_told:
            narrowest = boxes[box_width(boxes).argmin()]
            if words := narrow_box(narrowest, self.spec.cutoff / self._per_nm):
                self._narrow_box_told = True
                warnings.warn(f"{words}; None means that there is no box", stacklevel=4)

    def _read(self, positions: Any, of_read_atoms: bool) -> tuple[Tensor, bool]:
        """The atoms that are needed, (frames, num_read, 3) nm float64 on the device; whether frames were given."""
        array = positions if isinstance(positions, Tensor) else _array_like(positions)
        count = len(self.read_atoms) if of_read_atoms else self.num_particles
        if array.ndim not in (2, 3) or tuple(array.shape[-2:]) != (count, 3):
            raise SpecError(
                f"positions of shape {tuple(array.shape)} came in, the topology has {self.num_particles} particles, of "
                f"which {len(self.read_atoms)} are read: give ({count}, 3) or (frames, {count}, 3), or a topology that "
                "has every particle of the System, dummies too (named DUM, without an element)"
            )
        if not of_read_atoms:
            array = _rows(array, self.read_atoms)
        chosen = array if isinstance(array, Tensor) else torch.from_numpy(np.array(nanometers(array), dtype=np.float64))
        # Looked at where they come from: what is on the host needs no answer of the device.
        chosen = chosen.detach().to(torch.float64).reshape(-1, len(self.read_atoms), 3)
        if not bool(torch.isfinite(chosen).all()):
            frame, row = torch.nonzero(~torch.isfinite(chosen).all(dim=2))[0].tolist()
            atom = atom_name(self.topology.atom(int(self.read_atoms[row])))
            raise NonFiniteError(
                f"the position of atom {atom}{_in_frame(frame, array.ndim == 3)} is {chosen[frame, row].tolist()} nm: "
                "the simulation has blown up, or the frame was not read whole"
            )
        return chosen.to(self.device), array.ndim == 3

    def _tokens_of(self, positions: Tensor, box_vectors: Tensor | None) -> Tensor:
        """(frames, num_tokens, 4, width) of whole positions in nm."""
        atoms = self._atoms_of(positions, box_vectors)
        sums = atoms.new_zeros((len(positions), self.num_tokens, *atoms.shape[2:]))
        sums.index_add_(1, self._token_of, atoms[:, self._row_of])
        if self.reduction is Reduction.MEAN:
            sums /= self._sizes[:, :, None]
        return sums

    def _atoms_of(self, positions: Tensor, box_vectors: Tensor | None) -> Tensor:
        """(frames, num_atoms, 4, width), each atom's from the graph that describes it."""
        box = None if box_vectors is None else (box_vectors * self._per_nm).to(self._exact)
        if not self.context.is_window:
            return self._encoded(self._blocks[0], positions, box)
        shape = (len(positions), self.num_atoms, 4, self.width)
        features = torch.empty(shape, dtype=self._exact, device=self.device)

        def describe(block: GraphBlock) -> None:
            features[:, block.atoms] = self._encoded(block, positions, box)[:, block.described]

        for_each(describe, self._blocks, self.device)  # each writes rows of its own
        return features

    def _encoded(self, block: GraphBlock, positions: Tensor, box: Tensor | None) -> Tensor:
        """(frames, copies, 4, width) of the atoms of a block; positions in nm, the box in the encoder's unit."""
        frames = len(positions)
        centred = (block.centred(positions) * self._per_nm).to(self._exact).reshape(-1, 3)
        boxes = None if box is None else box.repeat_interleave(block.num_graphs, dim=0)
        edges, vectors, distances = self._encoder.edges(centred, block.graphs_of(frames), boxes)
        numbers = self._numbers[block.rows].repeat(frames)
        scalars, atom_vectors = self._encoder.encode(numbers, edges, vectors, distances)
        return torch.cat([scalars[:, None], atom_vectors], dim=1).to(self._exact).unflatten(0, (frames, -1))

    def _check_features(self, features: Tensor, many: bool) -> None:
        finite = torch.isfinite(features).flatten(2).all(dim=2)
        if not bool(finite.all()):
            frame, token = torch.nonzero(~finite)[0].tolist()
            raise NonFiniteError(
                f"the encoder gave features that are not finite for token {self.tokens.labels[token]}"
                f"{_in_frame(frame, many)} ({int((~finite).sum())} tokens in all): its weights are damaged, atoms "
                "overlap, or bfloat16 has not the range"
            )


def _loaded(encoder: Encoder | str | os.PathLike[str], neighbor_rule: str | None) -> tuple[str, Encoder]:
    """Name and module of an encoder, which is loaded where it is a path or a name."""
    if isinstance(encoder, str | os.PathLike):
        return Path(encoder).name, load_encoder(encoder, neighbor_rule)
    return encoder.spec.architecture.value, in_form(encoder, neighbor_rule)


def _token_table(
    topology: Any, selected: np.ndarray, tokens: str | Sequence[Sequence[int]], coordinates: Coordinates
) -> TokenTable:
    if not isinstance(tokens, str):
        return group_tokens(topology, selected, tokens, coordinates)
    table_of = {Tokens.RESIDUE: residue_tokens, Tokens.ATOM: atom_tokens}
    return table_of[_choice(Tokens, tokens, "tokens")](topology, selected, coordinates)


def _choice(kind: type[Any], value: Any, name: str) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise SpecError(f"{name} is {value!r}: give one of {[one.value for one in kind]}") from error


def _array_like(positions: Any) -> Any:
    """An array, or a Quantity that has one; lists (of Vec3) are converted."""
    held = getattr(positions, "_value", positions)
    if isinstance(held, np.ndarray):
        return positions
    return np.asarray(nanometers(positions), dtype=np.float64)


def _rows(positions: Any, atoms: np.ndarray) -> Any:
    """The positions of some atoms, of a tensor, an array or a Quantity of one; nothing else is touched."""
    if isinstance(positions, Tensor):
        return positions.index_select(-2, torch.as_tensor(atoms, device=positions.device))
    return positions[..., atoms, :]


def _box_tensor(box_vectors: Any) -> Tensor:
    """Box vectors from a tensor, array, Quantity, or the three Quantities that a System returns."""
    if isinstance(box_vectors, Tensor):
        return box_vectors.detach()
    if isinstance(box_vectors, list | tuple):
        box_vectors = [nanometers(vector) for vector in box_vectors]
    return torch.from_numpy(np.array(nanometers(box_vectors), dtype=np.float64))


def _in_frame(frame: int, many: bool) -> str:
    return f" in frame {frame}" if many else ""
