"""A bias along learned variables: OPES, metadynamics, walls, records."""
