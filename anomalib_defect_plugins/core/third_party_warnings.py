"""Warnings of other packages that no user of a command can act on. Standard library only."""

import logging
import sys
import warnings
from pathlib import Path

COMMANDS = {"anomalib", "anomalib-defects"}

MESSAGES = (
    "Importing from timm.models.layers is deprecated",
    "The anomalib.models.components.dinov2 package is deprecated",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # batch norm of a pretrained encoder
    r".*does not have many workers which may be a bottleneck",
    r"This DataLoader will create \d+ worker processes in total",
    r"Total length of `\w+` across ranks is zero",  # one photo, without test images
)
"""Regular expressions of the beginnings of the warnings."""


def silence() -> None:
    """Ignore the warnings in the commands; programs that import the package see them."""
    if Path(sys.argv[0]).name in COMMANDS:
        for message in MESSAGES:
            warnings.filterwarnings("ignore", message)
        # It lists the layers of the classifier, which an encoder leaves out.
        logging.getLogger("timm.models._builder").addFilter(lambda record: record.levelno != logging.WARNING)
