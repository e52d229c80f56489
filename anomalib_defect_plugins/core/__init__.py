"""What every other folder stands on: errors, checks, files, images. Imports neither Lightning nor anomalib.

Only ``defect_generator`` and ``rng`` need torch.
"""
