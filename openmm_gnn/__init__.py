"""Graph neural networks as forces in OpenMM: neighbour pairs, GAMD, and the Force that carries it.

Names are imported when first used, so `import openmm_gnn` is instant, prints nothing and touches no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openmm_gnn.base.specs.encoder import EncoderSpec as EncoderSpec
    from openmm_gnn.base.specs.force import GAMDSpec as GAMDSpec
    from openmm_gnn.base.specs.force import NeighborSpec as NeighborSpec
    from openmm_gnn.features.featurizer import Featurizer as Featurizer
    from openmm_gnn.features.learned_cv import load_learned_cv as load_learned_cv
    from openmm_gnn.forces.cv_force import cv_force as cv_force
    from openmm_gnn.forces.feature_force import feature_force as feature_force
    from openmm_gnn.forces.gamd_force import gamd_force as gamd_force
    from openmm_gnn.forces.multiple_time_step import accelerate as accelerate
    from openmm_gnn.graph.neighbor_list import NeighborList as NeighborList
    from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs as neighbor_pairs
    from openmm_gnn.md.systems.systems import load_system as load_system
    from openmm_gnn.networks.gamd import GAMD as GAMD
    from openmm_gnn.networks.weights import load_encoder as load_encoder
    from openmm_gnn.networks.weights import load_model as load_model
    from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter as EmbeddingReporter
    from openmm_gnn.reporters.embedding_reporter import FeatureForceReporter as FeatureForceReporter
    from openmm_gnn.reporters.embedding_store import EmbeddingStore as EmbeddingStore

_HOME_OF = {
    "EmbeddingReporter": "openmm_gnn.reporters.embedding_reporter",
    "EmbeddingStore": "openmm_gnn.reporters.embedding_store",
    "EncoderSpec": "openmm_gnn.base.specs.force",
    "FeatureForceReporter": "openmm_gnn.reporters.embedding_reporter",
    "Featurizer": "openmm_gnn.features.featurizer",
    "GAMD": "openmm_gnn.networks.gamd",
    "GAMDSpec": "openmm_gnn.base.specs.force",
    "NeighborList": "openmm_gnn.graph.neighbor_list",
    "NeighborSpec": "openmm_gnn.base.specs.force",
    "accelerate": "openmm_gnn.forces.multiple_time_step",
    "cv_force": "openmm_gnn.forces.cv_force",
    "feature_force": "openmm_gnn.forces.feature_force",
    "gamd_force": "openmm_gnn.forces.gamd_force",
    "load_encoder": "openmm_gnn.networks.weights",
    "load_learned_cv": "openmm_gnn.features.learned_cv",
    "load_model": "openmm_gnn.networks.weights",
    "load_system": "openmm_gnn.md.systems.systems",
    "neighbor_pairs": "openmm_gnn.kernels.neighbor_pairs",
}
__all__ = [
    "GAMD",
    "EmbeddingReporter",
    "EmbeddingStore",
    "EncoderSpec",
    "FeatureForceReporter",
    "Featurizer",
    "GAMDSpec",
    "NeighborList",
    "NeighborSpec",
    "__version__",
    "accelerate",
    "cv_force",
    "feature_force",
    "gamd_force",
    "load_encoder",
    "load_learned_cv",
    "load_model",
    "load_system",
    "neighbor_pairs",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("openmm-gnn")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'openmm_gnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF, "__version__"])
