"""Training: force models, encoders and properties, and what all trainers share."""
