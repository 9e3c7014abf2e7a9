"""The border between OpenMM and a network: positions in nm come in, forces in kJ/mol/nm go out, in OpenMM's dtype.

Every spec of a GAMD is in nm and kJ/mol already, so nothing is converted here but dtypes; a network with other units
is converted here and nowhere else.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import io
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.graph.topology_tables import no_partners, real_atoms, separation_table, species_table
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.networks.charge_term import box_lengths, grid_sizes
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.vector_gamd import VectorGAMD


class OpenMMModule(nn.Module):
    """A network bound to one topology, with the signature that TorchForce and PythonForce call.

    Particles without an element (virtual sites) are not seen by the network and get no force.
    The spec travels as the string attribute `spec_json`, which survives freezing and serialisation.
    """

    species: Tensor
    atoms: Tensor
    partners: Tensor

    def __init__(self, model: ForceModel, topology: Any) -> None:
        super().__init__()
        spec = model.spec
        atoms = real_atoms(topology)
        self.spec_json = spec_to_json(spec)
        self.num_particles = topology.getNumAtoms()
        self.all_real = len(atoms) == self.num_particles
        self.num_species = len(spec.elements)
        self.needs_types = spec.use_bonds or isinstance(model, VectorGAMD)
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.neighbors = NeighborList(spec.neighbors.cutoff, spec.neighbors.skin, spec.neighbors.max_neighbors)
        self.conservative = isinstance(model, VectorGAMD) and model.conservative
        self.pair_term = model.pair_term if isinstance(model, VectorGAMD) else None
        self.far_neighbors = far_neighbor_list(model)
        self.charge_term = None if self.pair_term is None else self.pair_term.charge_term
        self.register_buffer("species", species_table(topology, spec.elements))
        self.register_buffer("atoms", torch.tensor(atoms, dtype=torch.int64))
        self.register_buffer("partners", separation_table(topology) if spec.use_bonds else no_partners(len(atoms)))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces.

        Args:
            positions: (num_particles, 3), nm, float32 or float64, wrapped or not.
            box_vectors: (3, 3), nm, rows a, b, c; open boundaries if absent.
        Returns:
            energy: 0-d, kJ/mol; zero where forces are predicted directly, which have none.
            forces: (num_particles, 3), kJ/mol/nm, contiguous, of the dtype and device of `positions`.
        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        if positions.size(0) != self.num_particles:
            raise ValueError(
                f"{positions.size(0)} positions came in, the module was exported for {self.num_particles} particles: "
                "export it again for this topology"
            )
        with torch.no_grad():
            x = positions if self.all_real else positions.index_select(0, self.atoms)
            pairs, vectors, distances = self.neighbors(x, box_vectors)
            types: Tensor | None = None
            if self.needs_types:
                types = pair_types(pairs, self.species, self.partners, self.num_species)
            energy, forces = self.model.energy_and_forces(
                self.species, pairs, vectors.to(self.dtype), distances.to(self.dtype), types
            )
            if self.pair_term is not None and self.far_neighbors is not None:
                pairs, vectors, distances = self.far_neighbors(x, box_vectors)
                types = pair_types(pairs, self.species, self.partners, self.num_species)
                pair_forces, pair_energy = self.pair_term(
                    pairs, types, vectors.to(self.dtype), distances.to(self.dtype), x.size(0)
                )
                if self.charge_term is not None:
                    lengths = box_lengths(box_vectors)
                    assert box_vectors is not None
                    sizes = grid_sizes(lengths, self.charge_term.width)
                    charge_forces, charge_energy = self.charge_term(x, self.species, box_vectors, sizes)
                    pair_forces, pair_energy = pair_forces + charge_forces, pair_energy + charge_energy
                forces = forces + pair_forces
                if self.conservative:
                    energy = energy + pair_energy
            forces = forces.to(positions.dtype)
            if not self.all_real:
                forces = torch.zeros_like(positions).index_copy(0, self.atoms, forces)
            energy = energy.to(positions.dtype).reshape([])
        return energy, forces.contiguous()


def far_neighbor_list(model: ForceModel) -> NeighborList | None:
    """The list of a model's pair term, skin and capacity in proportion to the network's; None without one."""
    if not isinstance(model, VectorGAMD) or model.pair_term is None:
        return None
    near, reach = model.spec.neighbors, model.spec.pair_cutoff
    ratio = (reach + near.skin) / (near.cutoff + near.skin)
    return NeighborList(reach, near.skin, math.ceil(near.max_neighbors * max(1.0, ratio) ** 3))


def script_module(model: ForceModel, topology: Any) -> torch.jit.ScriptModule:
    """The TorchScript module of a network for one topology, in evaluation mode.

    Raises:
        TopologyError: if the topology has an element that the model does not know, or no atoms.
    """
    if topology is None or not hasattr(topology, "getNumAtoms"):
        raise TopologyError(f"expected an openmm.app.Topology, got {type(topology).__name__}")
    return _without_calls(torch.jit.script(OpenMMModule(model.eval(), topology).eval()))


def export(model: ForceModel, topology: Any, path: str | os.PathLike[str]) -> Path:
    """Write the TorchScript module of a network for one topology; the file is complete or not there at all.

    The result can be given to `load_model`, or loaded with torch.jit.load after `import openmm_gnn.kernels.library`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    module = script_module(model, topology)
    write_atomically(path, lambda file: torch.jit.save(module, file))
    return path


def _without_calls(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The same module with every method it calls written out in `forward`; weights stay weights.

    OpenMM's forces freeze a copy of the module and drop the copy, but TorchScript's interpreter still asks the copy's
    functions for their names when an operator throws: a segmentation fault in place of "position of atom 3 is NaN" or
    "raise max_neighbors". Written out, saved and loaded, the graph remembers no function. It is not frozen here:
    frozen weights could not follow the System to a GPU.
    """
    copied = _saved_and_loaded(module)
    for weight in copied.parameters():
        weight.requires_grad_(False)  # or an energy model would compute their gradients with its forces
    torch._C._jit_pass_inline(copied.graph)
    return _saved_and_loaded(copied)


def _saved_and_loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)
