"""Serves the demo: ``python demo/app.py [--results DIR]``; also the entry point of a Hugging Face Space."""  # noqa: INP001

import sys

from anomalib_defect_plugins.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
