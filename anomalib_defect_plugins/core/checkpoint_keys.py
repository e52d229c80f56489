"""Keys that this package adds to checkpoints."""

MODEL_KEY = "model_class"
"""Name of the model's class, which checkpoints of anomalib's models and earlier ones do not have."""

OPERATING_POINT_KEY = "anomalib_defects_operating_point"
"""Record of the operating point that ``anomalib-defects threshold`` has written, also in the metadata of graphs."""
