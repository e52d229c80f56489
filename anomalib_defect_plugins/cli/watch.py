"""``anomalib-defects watch``: inspect images as they appear in a folder."""

import argparse
import sys
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.stop_signals import handle_stop_signals


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Inspect the images that appear in a folder and its subfolders, each exactly once, also if the process is "
        "killed and started again. The record is the SQLite database OUT/inspected.sqlite, with a row for each image."
    )
    command = commands.add_parser(
        "watch", help="inspect images as they appear in a folder", description=about, allow_abbrev=False
    )
    command.add_argument("folder", metavar="DIR", type=Path, help="folder in which images appear")
    command.add_argument("--model", type=Path, required=True, help="exported folder, or OpenVINO graph model.xml")
    command.add_argument("--out", type=Path, required=True, help="folder of the record, and of moved images and links")
    action = command.add_mutually_exclusive_group()
    action.add_argument("--move", dest="action", action="store_const", const="move", help="move images to OUT/VERDICT")
    action.add_argument("--link", dest="action", action="store_const", const="link", help="link images in OUT/VERDICT")
    command.add_argument("--threshold", type=float, help="score from which an image is defective; default: the model's")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="folder for overlays, masks and maps")
    command.add_argument("--device", default="CPU", help="CPU, GPU, NPU or AUTO; default: CPU")
    command.add_argument("--webhook", metavar="URL", help="address that a JSON message about each image is posted to")
    command.add_argument("--mqtt", metavar="HOST:PORT/TOPIC", help="broker and topic that messages are published to")
    command.add_argument("--interval", type=float, default=0.5, help="seconds between two looks; default: 0.5")
    command.add_argument(
        "--settle", type=float, default=1.0, help="seconds without a change before a file is inspected; default: 1"
    )
    command.add_argument("--once", action="store_true", help="end when nothing is left to inspect")
    command.set_defaults(run=_run, action="none")


def _run(options: argparse.Namespace) -> int:
    from anomalib_defect_plugins.deployment.notify import mqtt, webhook
    from anomalib_defect_plugins.deployment.watch import Watcher, WatchSettings
    from anomalib_defect_plugins.inference.bundle import find_graph, hash_graph
    from anomalib_defect_plugins.inference.openvino import Inspector
    from anomalib_defect_plugins.inference.predictor import InspectSettings

    for name, value in (("--interval", options.interval), ("--settle", options.settle)):
        if not 0 <= value < 1e6:
            msg = f"{name} is {value}; it must be a number of seconds, 0 or more"
            raise InvalidInputError(msg)
    senders = [make(text) for make, text in ((webhook, options.webhook), (mqtt, options.mqtt)) if text]
    folder = options.folder.absolute()
    settings = InspectSettings(
        options.threshold,
        pictures=options.pictures and options.pictures.absolute(),
        root=folder,
        device=options.device,
    )
    watch = WatchSettings(options.action, options.interval, options.settle, options.once)
    inspector, model = Inspector.load(options.model, settings), hash_graph(find_graph(options.model))

    def notify(content: dict[str, object]) -> None:
        for send in senders:
            send(content)

    handle_stop_signals()
    watcher = Watcher(inspector, model, folder, options.out, watch, notify if senders else None)
    try:
        sys.stderr.write(f"watching {options.folder}; stop with Ctrl-C\n")
        watcher.run()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues\n")
    return 0
