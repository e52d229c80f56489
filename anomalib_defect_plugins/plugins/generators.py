"""The registered defect generators, as attributes by name and by class name."""
