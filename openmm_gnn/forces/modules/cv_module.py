"""The module of a learned CV for one topology: positions of a System in nm come in, values and their gradients go out.

**Gradients.** Molecules are made whole, and the molecule is moved to the origin, by translations; these are constants
between two frames, and the network does not see them, so they carry no gradient. The compiled loops of TorchMD-ET and
TensorNet have gradients, and run here too; ViSNet runs in plain operations.

**The forces of OpenMM's backends** are handed over by the module itself. OpenMM freezes it, which erases `detach` and
is why the positions that are differentiated are made inside `no_grad`.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.features.covalent_bonds import atom_name
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.features.residue_windows import GraphBlock, ResidueWindows, whole_graph
from openmm_gnn.features.selection import check_elements, select_atoms
from openmm_gnn.features.token_table import TokenTable
from openmm_gnn.features.topologies import as_mdtraj, topology_hash
from openmm_gnn.features.whole_molecules import _IMAGES, WholeMolecules
from openmm_gnn.forces.modules.openmm_module import check_num_positions, to_torchscript
from openmm_gnn.networks.encoders.encoder import known_elements


class CVModule(nn.Module):
    """Positions -> the values of all outputs of a learned CV, differentiable. Scriptable.

    `prepared` makes whole and centres; `values` is what is differentiated; `forward` is both.
    """

    read_atoms: Tensor
    numbers: Tensor
    hops: Tensor
    molecule: Tensor
    molecule_sizes: Tensor
    images: Tensor
    token_of: Tensor
    row_of: Tensor
    sizes: Tensor
    is_centroid: Tensor
    anchor_row: Tensor
    graph_rows: Tensor
    graph: Tensor
    described: Tensor

    def __init__(self, cv: LearnedCV, topology: Any, dtype: torch.dtype = torch.float32) -> None:
        """
        Args:
            topology: of the whole System, openmm.app.Topology or mdtraj.Topology.
            dtype: of the networks' arithmetic.
        Raises:
            TopologyError: if the CV was learned for another topology, or with other bonds between residues.
        """
        super().__init__()
        topology = as_mdtraj(topology)
        selected = select_atoms(topology, cv.selection)
        check_same_topology(cv, topology, selected)
        spec = cv.encoder.spec
        check_elements(topology, selected, known_elements(spec))
        whole = WholeMolecules(topology, selected)
        tokens = TokenTable.from_json(cv.tokens).moved_to(topology, selected)
        self.num_particles = int(topology.n_atoms)
        self.num_selected, self.num_molecules = whole.num_selected, whole.num_molecules
        self.num_tokens, self.num_outputs = tokens.num_tokens, cv.num_outputs
        self.mean_of_atoms = cv.reduction == "mean"
        self.per_nm = spec.per_nm
        self.dtype = dtype
        self.encoder = copy.deepcopy(cv.encoder).to(dtype).requires_grad_(False).eval()
        self.network = copy.deepcopy(cv.network).to(dtype).requires_grad_(False).eval()
        self.register_buffer("read_atoms", torch.from_numpy(whole.atoms.copy()))
        numbers = torch.tensor([topology.atom(int(index)).element.number for index in selected])
        block = _graphs(cv, topology, selected)
        self.num_graphs = block.num_graphs
        self.register_buffer("numbers", numbers[block.rows])
        self.register_buffer("graph_rows", block.rows)
        self.register_buffer("graph", block.graph)
        self.register_buffer("described", block.described[torch.argsort(block.atoms)])
        self.register_buffer("hops", torch.stack(whole.hops))
        self.register_buffer("molecule", whole.molecule)
        self.register_buffer("molecule_sizes", torch.bincount(whole.molecule)[:, None].double())
        self.register_buffer("images", _IMAGES)
        token_of, row_of, sizes, is_centroid, anchor_row = tokens.rows_among(selected)
        self.register_buffer("token_of", token_of)
        self.register_buffer("row_of", row_of)
        self.register_buffer("sizes", sizes.to(dtype))
        self.register_buffer("is_centroid", is_centroid)
        self.register_buffer("anchor_row", anchor_row)

    @torch.jit.export
    def prepared(self, read: Tensor, box_vectors: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What `values` takes, without gradient: selected atoms, whole and centred, and the box, in the encoder's unit.

        Args:
            read: (num_read, 3) nm, of `read_atoms`.
            box_vectors: (3, 3) nm, rows a, b, c; None: no periodic box.
        Returns:
            (num_selected, 3) and (3, 3), of the networks' dtype.
        """
        with torch.no_grad():
            exact = read.to(torch.float64)
            box: Tensor | None = None
            if box_vectors is not None:
                cell = box_vectors.to(torch.float64)
                exact = self._whole(exact, cell)
                box = (cell * self.per_nm).to(self.dtype)
            exact = exact[: self.num_selected]
            moved = exact - exact.mean(dim=0, keepdim=True)  # or float32 would not resolve what is far away
            return (moved * self.per_nm).to(self.dtype), box

    @torch.jit.export
    def values(self, centred: Tensor, box: Tensor | None) -> Tensor:
        """(num_outputs,) at the positions of one frame that `prepared` gives."""
        copies = centred.index_select(0, self.graph_rows)
        graph: Tensor | None = self.graph if self.num_graphs > 1 else None
        edges, vectors, distances = self.encoder.edges(copies, graph, box)
        scalars, atom_vectors = self.encoder.network(self.numbers, edges, vectors, distances)
        return self.outputs(scalars, atom_vectors, centred)

    @torch.jit.export
    def outputs(self, scalars: Tensor, atom_vectors: Tensor, centred: Tensor) -> Tensor:
        """(num_outputs,) of what the encoder says about the atoms of its graphs, and the positions of `prepared`."""
        atoms = torch.cat([scalars.unsqueeze(1), atom_vectors], dim=1).index_select(0, self.described)
        width = atoms.size(2)
        sums = torch.zeros((self.num_tokens, 4, width), dtype=atoms.dtype, device=atoms.device)
        tokens = sums.index_add(0, self.token_of, atoms.index_select(0, self.row_of))
        if self.mean_of_atoms:
            tokens = tokens / self.sizes.unsqueeze(2)
        lengths = centred / self.per_nm
        totals = torch.zeros((self.num_tokens, 3), dtype=centred.dtype, device=centred.device)
        centroids = totals.index_add(0, self.token_of, lengths.index_select(0, self.row_of)) / self.sizes
        coordinates = torch.where(self.is_centroid, centroids, lengths.index_select(0, self.anchor_row))
        return self.network(tokens.unsqueeze(0), coordinates.unsqueeze(0))[0]

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> Tensor:
        """(num_outputs,) values, without gradient.

        Args:
            positions: (num_particles, 3) nm, of the whole System, wrapped in any way.
            box_vectors: (3, 3) nm, rows a, b, c in OpenMM's reduced form; None: no periodic box.
        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        check_num_positions(positions, self.num_particles)
        with torch.no_grad():
            centred, box = self.prepared(positions.index_select(0, self.read_atoms), box_vectors)
            return self.values(centred, box)

    def _whole(self, positions: Tensor, box: Tensor) -> Tensor:
        """As `WholeMolecules`, of one frame; the atoms on the bonds between the selected ones come along."""
        inverse = torch.linalg.inv(box)
        fractions = positions @ inverse
        shifts = -torch.round(fractions - fractions.index_select(0, self.hops[0]))
        for level in range(self.hops.size(0)):
            shifts = shifts + shifts.index_select(0, self.hops[level])
        whole = (positions + shifts @ box)[: self.num_selected]
        if self.num_molecules == 1:
            return whole
        sums = torch.zeros((self.num_molecules, 3), dtype=whole.dtype, device=whole.device)
        centroids = sums.index_add(0, self.molecule, whole) / self.molecule_sizes
        away = centroids - centroids[:1]
        nearest = -torch.round(away @ inverse)
        candidates = nearest.unsqueeze(1) + self.images
        squares = (away.unsqueeze(1) + candidates @ box).square().sum(dim=2)
        best = squares.argmin(dim=1)
        chosen = candidates[torch.arange(self.num_molecules, device=best.device), best]
        return whole + (chosen @ box).index_select(0, self.molecule)


def _graphs(cv: LearnedCV, topology: Any, selected: np.ndarray) -> GraphBlock:
    """The graphs that a CV's encoder sees, all in one block.

    Raises:
        TopologyError: if the topology's bonds make other windows than those the CV was learned in.
    """
    if not cv.context.is_window:
        return whole_graph(len(selected))
    windows = ResidueWindows.of(topology, selected, cv.context.window)
    if cv.context.segments is not None and windows.context.segments != cv.context.segments:
        raise TopologyError(
            f"the CV was learned in windows along runs of {list(cv.context.segments)} bonded residues, the bonds of "
            f"this topology make runs of {list(windows.context.segments or ())}: give the topology with the bonds of "
            "the run that the features are of"
        )
    (block,) = windows.blocks(windows.num_copies)
    return block


class CVEnergyModule(nn.Module):
    """One output of a CV as an energy with its forces: what TorchForce and PythonForce call. Scriptable."""

    def __init__(self, cv_module: CVModule, output: int, spec_json: str) -> None:
        super().__init__()
        self.spec_json = spec_json
        self.cv_module = cv_module
        self.output = output
        self.num_particles = cv_module.num_particles
        self.num_selected = cv_module.num_selected
        self.per_nm = cv_module.per_nm

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy, which is the output's value as if in kJ/mol, and forces (num_particles, 3).

        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        check_num_positions(positions, self.num_particles)
        with torch.no_grad():
            centred, box = self.cv_module.prepared(positions.index_select(0, self.cv_module.read_atoms), box_vectors)
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # TorchScript has no enable_grad
        centred.requires_grad_(True)
        value = self.cv_module.values(centred, box)[self.output]
        gradient = torch.autograd.grad([value], [centred])[0]
        torch.set_grad_enabled(before)
        assert gradient is not None
        with torch.no_grad():
            chosen = self.cv_module.read_atoms[: self.num_selected]
            forces = (gradient * -self.per_nm).to(positions.dtype)
            energy = value.detach().to(positions.dtype).reshape([])
            return energy, torch.zeros_like(positions).index_copy(0, chosen, forces).contiguous()


def cv_energy_module(cv: LearnedCV, topology: Any, output: int = 0) -> torch.jit.ScriptModule:
    """The TorchScript module (positions, box_vectors) -> (energy, forces) of one output of a CV.

    Raises:
        SpecError: if there is no such output.
        TopologyError: if the CV was learned for another topology.
    """
    check_output(cv, output)
    return to_torchscript(CVEnergyModule(CVModule(cv, topology), output, spec_to_json(cv.network.spec)))


class SharedCVEnergyModule(nn.Module):
    """One output of a CV as an energy, computed by a `forces.shared_cv.SharedCV` of this process. Scriptable.

    In a process that has none of this name, it is computed from `source`.
    """

    atoms: Tensor
    source: Tensor

    def __init__(self, alone: CVEnergyModule, source: bytes, name: str, output: int) -> None:
        """
        Args:
            alone: the module of any output of the CV.
            source: TorchScript of `alone`.
            name: that the evaluation is known by.
        """
        super().__init__()
        self.spec_json = alone.spec_json
        self.name, self.output = name, output
        self.num_particles = alone.num_particles
        self.register_buffer("atoms", alone.cv_module.read_atoms.clone())
        self.register_buffer("source", torch.frombuffer(bytearray(source), dtype=torch.uint8))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `CVEnergyModule`."""
        check_num_positions(positions, self.num_particles)
        with torch.no_grad():
            box = torch.empty((0, 3), dtype=positions.dtype) if box_vectors is None else box_vectors
            read = positions.index_select(0, self.atoms)
            energy, forces = torch.ops.openmm_gnn_python.shared_output(read, box, self.name, self.output, self.source)
            return energy, torch.zeros_like(positions).index_copy_(0, self.atoms, forces)


def check_output(cv: LearnedCV, output: int) -> None:
    """Refuse an output that a CV has not.

    Raises:
        SpecError: saying how many there are.
    """
    if not 0 <= output < cv.num_outputs:
        raise SpecError(f"output is {output}: the CV has {cv.num_outputs}, counted from 0")


def check_same_topology(cv: LearnedCV, topology: Any, selected: np.ndarray) -> None:
    """Refuse a CV that was learned for other atoms than those that it is to act on.

    Args:
        topology: mdtraj.Topology.
        selected: indices of the atoms that the encoder sees; all others may be any.
    Raises:
        TopologyError: naming the first atoms that differ, if a CV was learned for other atoms, residues or bonds.
    """
    if topology_hash(topology, selected) != cv.topology_hash:
        raise TopologyError(
            f"the CV was learned for another topology: {_first_difference(cv, topology, selected)}. Give the CV of "
            "this system, or learn one from a run of it"
        )


def _first_difference(cv: LearnedCV, topology: Any, selected: np.ndarray) -> str:
    table = TokenTable.from_json(cv.tokens)
    symbols = [one.split() for one in table.elements] or [["?"] * len(atoms) for atoms in table.atoms]
    stored = sorted(
        (index, token, symbols[token][row])
        for token, atoms in enumerate(table.atoms)
        for row, index in enumerate(atoms)
    )
    by_residue = not any(label.startswith("group") or "." in label for label in table.labels)
    last_token = last_residue = -1
    for (index, token, symbol), now in zip(stored, selected.tolist(), strict=False):
        atom = topology.atom(now)
        other_residue = (token != last_token) != (atom.residue.index != last_residue)
        if symbol not in ("?", atom.element.symbol) or (by_residue and other_residue):
            return (
                f"its atom {index} ({symbol} of {table.labels[token]}) is atom {atom_name(atom)} of element "
                f"{atom.element.symbol} in the system"
            )
        last_token, last_residue = token, atom.residue.index
    if len(stored) != len(selected):
        return f"its encoder sees {len(stored)} atoms, the selection takes {len(selected)} of the system"
    return "the elements are the same, but other bonds join the atoms"
