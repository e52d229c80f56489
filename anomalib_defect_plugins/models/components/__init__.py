"""What the models share.

A model derives from :class:`~anomalib_defect_plugins.models.components.defect_model.DefectModel` and, if it trains for
a number of iterations, :class:`~anomalib_defect_plugins.models.components.iterative_training.IterativeTraining`.
"""
