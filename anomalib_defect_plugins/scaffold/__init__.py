"""``anomalib-defects new``: the package of a new plugin."""
