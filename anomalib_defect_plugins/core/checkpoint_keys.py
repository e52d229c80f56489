"""Keys that this package adds to checkpoints."""

MODEL_KEY = "model_class"
"""Name of the model's class, which checkpoints of anomalib's models and earlier ones do not have."""
