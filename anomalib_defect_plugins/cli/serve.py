"""``anomalib-defects serve``: a web service that inspects images."""

import argparse
import socket
import sys
from pathlib import Path

from anomalib_defect_plugins.core.errors import InvalidInputError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    about = (
        "Serve an exported model: POST /predict takes an image as the body, or several in a form, and returns scores, "
        "verdicts and regions; /health and /metrics are for supervision."
    )
    command = commands.add_parser("serve", help="serve an exported model", description=about, allow_abbrev=False)
    command.add_argument("model", metavar="MODEL", type=Path, help="exported folder, or OpenVINO graph model.xml")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    command.add_argument("--port", type=int, default=8000, help="port; default: 8000")
    command.add_argument("--threshold", type=float, help="score from which an image is defective; default: the model's")
    command.add_argument("--batch", type=int, default=1, help="maximum images per batch; default: 1")
    command.add_argument(
        "--batch-wait", type=float, default=0.005, help="seconds that an image waits for a batch; default: 0.005"
    )
    command.add_argument(
        "--precision", choices=("f32", "bf16", "f16"), default="f32", help="inference precision; default: f32"
    )
    command.add_argument("--device", default="CPU", help="CPU, GPU, NPU or AUTO; default: CPU")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        import prometheus_client  # noqa: F401 - needed later
        import python_multipart  # noqa: F401
        import uvicorn

        from anomalib_defect_plugins.deployment.service import create_app
    except ModuleNotFoundError as error:
        msg = f"the service needs {error.name}; pip install 'anomalib-defect-plugins[serve]'"
        raise InvalidInputError(msg) from error
    from anomalib_defect_plugins.inference.bundle import find_graph, hash_graph, read_metadata
    from anomalib_defect_plugins.inference.openvino import Inspector
    from anomalib_defect_plugins.inference.predictor import InspectSettings

    if options.batch < 1 or not 0 <= options.batch_wait <= 10:
        msg = f"--batch is {options.batch} and --batch-wait {options.batch_wait}; use 1 or more, and 0 to 10 seconds"
        raise InvalidInputError(msg)
    settings = InspectSettings(options.threshold, options.batch, options.precision, device=options.device)
    metadata = {"hash": hash_graph(find_graph(options.model)), **read_metadata(options.model)}
    app = create_app(Inspector.load(options.model, settings), metadata, options.batch_wait)
    with _listen(options.host, options.port) as server:
        host, port = server.getsockname()[:2]
        sys.stderr.write(f"serving at http://{host}:{port}; stop with Ctrl-C\n")
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        try:
            uvicorn.Server(config).run(sockets=[server])
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        # Python's message repeats the address.
        reason = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        msg = f"cannot listen on {host}:{port} ({reason}); choose another --host or --port"
        raise InvalidInputError(msg) from error
