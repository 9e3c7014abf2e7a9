"""Systems by name, from structure files and from force-field files."""
