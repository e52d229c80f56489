"""Shows the demo: ``python demo/app.py [--results DIR]``, and what a Space runs."""  # noqa: INP001

import argparse
import sys

from anomalib_defect_plugins.cli.demo import add_options, run
from anomalib_defect_plugins.plugins.excepthook import install_excepthook

if __name__ == "__main__":
    install_excepthook()
    parser = argparse.ArgumentParser(description="Surface defects: results, and models to try, in the browser.")
    add_options(parser)
    sys.exit(run(parser.parse_args()))
