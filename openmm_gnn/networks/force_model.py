"""The force models there are, and the one that belongs to a spec."""

from __future__ import annotations

from openmm_gnn.base.specs.force import EncoderForceSpec, ForceSpec, VectorGAMDSpec
from openmm_gnn.networks.encoder_force import EncoderForce
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.vector_gamd import VectorGAMD

ForceModel = GAMD | VectorGAMD | EncoderForce


def make_model(spec: ForceSpec) -> ForceModel:
    """A network of this spec with fresh weights."""
    if isinstance(spec, EncoderForceSpec):
        return EncoderForce(spec)
    return VectorGAMD(spec) if isinstance(spec, VectorGAMDSpec) else GAMD(spec)
