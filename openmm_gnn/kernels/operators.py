"""All operators with their shapes and gradients: what a process needs before it loads a module that calls them.

Shapes and gradients are registered by the files that wrap the operators, so a process that reads a module from a file
imports this one. A module whose gradients are written out (kernels/written_gradients.py) needs the library alone.
"""

from openmm_gnn.kernels import (  # noqa: F401
    array_program,
    attention,
    encoder_messages,
    gamd_tiles,
    learned_cv,
    neighbor_pairs,
    network_forces,
    pair_rows,
    particle_mesh,
    radial_pairs,
    shared_calls,
    vector_network,
)
