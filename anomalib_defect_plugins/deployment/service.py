"""The web service of ``anomalib-defects serve``: images in, verdicts out, with metrics for Prometheus."""

import asyncio
import base64
import io
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.image_limits import MAX_BYTES, MAX_FILES, MAX_PIXELS
from anomalib_defect_plugins.inference.openvino import Inspector, pixel_limit
from anomalib_defect_plugins.inference.predictor import Inspection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

MAX_REQUEST_BYTES = MAX_FILES * MAX_BYTES
"""Maximum length of a request."""

MAX_WAITING = 256
"""Maximum images that wait for the model; further requests are refused with status 503."""

IMAGE_TYPES = ("image/", "application/octet-stream")
"""Media types of a request whose body is an image."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Upload(NamedTuple):
    """An image file of a request."""

    name: str
    content: bytes


class _RefusedError(Exception):
    """A request that is refused with a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Batcher:
    """Combines images of concurrent requests into batches.

    Args:
        inspector: The model; its batch size is the maximum.
        wait: Maximum time in seconds that an image waits for others.
    """

    def __init__(self, inspector: Inspector, wait: float) -> None:
        self.inspector = inspector
        self.wait = wait
        self.size = inspector.settings.batch
        self.waiting = 0
        self._collected: list[tuple[bytes, asyncio.Future[Inspection | str]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._pool = ThreadPoolExecutor(inspector.workers)

    async def __call__(self, content: bytes) -> Inspection | str:
        """Inspect an encoded image; return the result, or the reason why there is none."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Inspection | str] = loop.create_future()
        self._collected.append((content, future))
        self.waiting += 1
        future.add_done_callback(self._forget)
        if len(self._collected) >= self.size:
            self._start(loop)
        elif self._timer is None:
            self._timer = loop.call_later(self.wait, self._start, loop)
        return await future

    def close(self) -> None:
        """Wait for the running batches."""
        self._pool.shutdown(cancel_futures=True)

    def _forget(self, _: object) -> None:
        self.waiting -= 1

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._collected = self._collected, []
        if batch:
            self._pool.submit(self._run, batch, loop)

    def _run(
        self, batch: Sequence[tuple[bytes, "asyncio.Future[Inspection | str]"]], loop: asyncio.AbstractEventLoop
    ) -> None:
        try:
            results: Sequence[Inspection | str] = self.inspector.try_images([content for content, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever happens, every request is answered
            results = [f"the inspection fails: {type(error).__name__}"] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            loop.call_soon_threadsafe(_resolve, future, result)


def _resolve(future: "asyncio.Future[Inspection | str]", result: Inspection | str) -> None:
    if not future.done():  # the client may have gone
        future.set_result(result)


class Metrics:
    """Counters of a service in the registry of Prometheus.

    Args:
        model: Hash of the model.
    """

    def __init__(self, model: str) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram, Info

        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry, "namespace": "anomalib_defects"}
        self.images = Counter("images", "Inspected images by verdict.", ["verdict"], **own)
        self.requests = Counter("requests", "Requests for predictions by status.", ["status"], **own)
        self.seconds = Histogram("request_seconds", "Time from a request to its answer.", **own)
        Info("model", "The model.", **own).info({"hash": model})

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        text: bytes = generate_latest(self.registry)
        return text


def create_app(inspector: Inspector, metadata: Mapping[str, Any], wait: float = 0.005) -> "FastAPI":
    """Create the application.

    Args:
        inspector: The model.
        metadata: Metadata of its bundle, at least ``hash``.
        wait: Maximum time in seconds that an image waits for others to make a batch.
    """
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    batcher, metrics = Batcher(inspector, wait), Metrics(metadata["hash"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> "AsyncIterator[None]":
        with pixel_limit(MAX_PIXELS):
            yield
        batcher.close()

    app = FastAPI(title="anomalib-defects", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> Any:
        return {"status": "ready", "model": metadata["hash"], "name": metadata.get("model", {}).get("name")}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    async def predict(request: Request) -> Response:
        start = time.perf_counter()
        try:
            status, content = 200, await _answer(request, batcher, metrics)
        except _RefusedError as error:
            status, content = error.status, {"error": str(error)}
        except HTTPException as error:
            status, content = error.status_code, {"error": str(error.detail)}
        except Exception as error:  # noqa: BLE001 - a request must not end with a traceback
            status, content = 400, {"error": f"the request cannot be read ({type(error).__name__})"}
        metrics.requests.labels(status).inc()
        metrics.seconds.observe(time.perf_counter() - start)
        return JSONResponse(content if status != 200 else {"model": metadata["hash"], **content}, status)

    app.add_route("/predict", predict, methods=["POST"])
    app.add_middleware(LengthLimit)
    return app


async def _answer(request: Any, batcher: Batcher, metrics: Metrics) -> dict[str, Any]:
    uploads = await _read_uploads(request)
    if batcher.waiting + len(uploads) > MAX_WAITING:
        raise _RefusedError(503, "too many images are waiting; send the request again later")
    results = await asyncio.gather(*(batcher(upload.content) for upload in uploads))
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, str):
            metrics.images.labels("error").inc()
            raise _RefusedError(422, f"{upload.name}: {result}")
        metrics.images.labels("defective" if result.is_defective else "normal").inc()
    with_map = request.query_params.get("map", "") in {"1", "true"}
    named = zip(uploads, results, strict=True)
    return {"results": [_describe(upload.name, result, with_map) for upload, result in named]}


async def _read_uploads(request: Any) -> list[Upload]:
    """Read the images of a request: its body, or the files of a form."""
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(IMAGE_TYPES):
        return [_checked(Upload("image", await request.body()))]
    if not kind.startswith("multipart/form-data"):
        raise _RefusedError(415, "send an image as the body (image/png, ...), or files in a form (multipart/form-data)")
    async with request.form(max_files=MAX_FILES, max_fields=MAX_FILES) as form:
        files = [value for _, value in form.multi_items() if hasattr(value, "read")]
        uploads = [_checked(Upload(file.filename or "image", await file.read())) for file in files]
    if not uploads:
        raise _RefusedError(400, "the form contains no file")
    return uploads


def _checked(upload: Upload) -> Upload:
    if not upload.content:
        raise _RefusedError(400, f"{upload.name} is empty")
    if len(upload.content) > MAX_BYTES:
        raise _RefusedError(413, f"{upload.name} is longer than {MAX_BYTES} bytes")
    return upload


def _describe(name: str, result: Inspection | str, with_map: bool) -> dict[str, Any]:
    if isinstance(result, str):
        raise InvalidInputError(result)
    regions = None if result.regions is None else [asdict(region) for region in result.regions]
    described = {
        "name": name,
        "score": result.score,
        "is_defective": result.is_defective,
        "regions": regions,
        "seconds": result.seconds,
    }
    if with_map and result.anomaly_map is not None:
        described["map"] = _encode_map(result)
    return described


def _encode_map(result: Inspection) -> str:
    """Return the map as a TIFF file with 32-bit values, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(result.anomaly_map)).save(buffer, "TIFF", compression="tiff_adobe_deflate")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class LengthLimit:
    """Middleware that refuses requests that are too long, or do not say how long they are.

    Args:
        app: The wrapped application.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        refusal = _check_length(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, reason = refusal
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": f'{{"error": "{reason}"}}'.encode()})


def _check_length(scope: Message) -> tuple[int, str] | None:
    if scope["method"] not in {"POST", "PUT", "PATCH"}:
        return None
    length = dict(scope["headers"]).get(b"content-length", b"")
    if not length.isdigit():
        return 411, "content-length is missing or invalid"
    return (413, f"the request is longer than {MAX_REQUEST_BYTES} bytes") if int(length) > MAX_REQUEST_BYTES else None
