"""The potential `gamd` of openmm-ml: MLPotential("gamd", model=...).createSystem(topology).

openmm-ml finds it by the entry point group `openmmml.potentials` and imports this file while it is being imported
itself: nothing heavy is imported here before a potential is made, and nothing of openmm-ml, which would be a circle. It
asks for no base class; a test compares the methods with those of its MLPotentialImpl.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from openmm_gnn.base.errors import SpecError

if TYPE_CHECKING:
    import openmm
    from openmm import app

    from openmm_gnn.networks.force_model import ForceModel

_OF_EMBEDDINGS = ("linkAtomDistances", "mlLongRange")
"""Arguments of createMixedSystem that openmm-ml hands on to every potential."""


class GAMDPotentialFactory:
    """Makes the potential `gamd`."""

    def createImpl(
        self, name: str, model: ForceModel | str | os.PathLike[str] | None = None, **args: Any
    ) -> GAMDPotential:
        """A potential from a network, or a name or path for `load_model`.

        Raises:
            SpecError: if no model or an unknown argument is given, or the network knows non-bonded forces alone.
        """
        if args:
            raise SpecError(f"MLPotential({name!r}) has no arguments {sorted(args)}: give `model`")
        if model is None:
            raise SpecError(
                f"MLPotential({name!r}) needs a model: give the name of a shipped one or the path of a bundle"
            )
        return GAMDPotential(model)


class GAMDPotential:
    """A network as a potential of openmm-ml.

    A network that predicts forces directly has no energy: Systems made with it report that of their other forces
    alone, which neither minimisers nor barostats can use. Its forces are right everywhere, also in a mixed system with
    interpolation, where they are multiplied by lambda_interpolate.
    """

    def __init__(self, model: ForceModel | str | os.PathLike[str]) -> None:
        from openmm_gnn.forces.gamd_force import trained_on_nonbonded
        from openmm_gnn.networks.weights import load_model

        self.model = load_model(model)
        if trained_on_nonbonded(self.model):
            raise SpecError(
                "the model was trained on non-bonded forces, but openmm-ml removes the bonded ones: train on data of "
                "`openmm-gnn label --forces all`"
            )

    def addForces(
        self, topology: app.Topology, system: openmm.System, atoms: Iterable[int] | None, forceGroup: int, **args: Any
    ) -> None:
        """Add the network's force on these atoms, or on all, to a System.

        Args:
            args: `backend`, as for `gamd_force`; what belongs to embeddings is passed over.
        Raises:
            SpecError: if an argument is unknown.
            TopologyError: if an atom is of an element that the network does not know.
        """
        from openmm_gnn.forces.backends import Backend
        from openmm_gnn.forces.gamd_force import gamd_force

        backend = args.pop("backend", Backend.AUTO)
        if unknown := sorted(set(args) - set(_OF_EMBEDDINGS)):
            raise SpecError(f"the potential gamd has no arguments {unknown}: give `backend` or none")
        # setParticles of PythonForce gives wrong positions on GPU platforms of OpenMM 8.6: the module chooses atoms.
        force = gamd_force(
            self.model,
            topology,
            backend,
            # A System that openmm-ml has just made has no forces that could say.
            periodic=system if system.getNumForces() else topology.getPeriodicBoxVectors() is not None,
            atoms=None if atoms is None else [int(atom) for atom in atoms],
        )
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getMLLongRange(self) -> bool:
        """False: an atom feels what lies within the network's cutoff times its layers, and no image sum."""
        return False

    def getSupportedEmbeddings(self) -> list[str]:
        """None of its own: openmm-ml's embeddings serve."""
        return []
