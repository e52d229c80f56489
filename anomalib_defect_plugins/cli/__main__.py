"""``python -m anomalib_defect_plugins.cli`` runs the ``anomalib-defects`` command."""

import sys

from anomalib_defect_plugins.cli import main

sys.exit(main())
