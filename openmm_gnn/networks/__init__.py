"""Networks: force models, encoders, networks of tokens; their weights."""
