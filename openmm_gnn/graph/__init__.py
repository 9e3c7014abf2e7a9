"""From positions to edges: neighbour lists, radial bases, cutoff functions, tables of the topology."""
