"""The force models there are, and the one that belongs to a spec."""

from __future__ import annotations

from openmm_gnn.models.encoder_force import EncoderForce
from openmm_gnn.models.gamd import GAMD
from openmm_gnn.models.vector_gamd import VectorGAMD
from openmm_gnn.spec import EncoderForceSpec, ForceSpec, VectorGAMDSpec

ForceModel = GAMD | VectorGAMD | EncoderForce


def make_model(spec: ForceSpec) -> ForceModel:
    """A network of this spec with fresh weights."""
    if isinstance(spec, EncoderForceSpec):
        return EncoderForce(spec)
    return VectorGAMD(spec) if isinstance(spec, VectorGAMDSpec) else GAMD(spec)
