"""POST /v2/models/{model}/infer: tensors or images in, tensors out.

Each row of a request is queued, batched and refused like an image of /classify.
"""

import asyncio
import re
import time

from starlette.types import Receive, Scope, Send

from service.api.endpoints.fan_out import gather_all, window_size
from service.api.endpoints.inference import InferenceService, read_body
from service.api.parsing.json_body import parsing_bytes
from service.api.v2.compression import packed, unpacked
from service.api.v2.json_tensors import bad_tensor
from service.api.v2.rows import InferCall, joined, read_call
from service.api.v2.tensors import write_response
from service.batching.jobs import SubmitOptions
from service.errors import BadImage, NotAnImage, ServiceError
from service.http.request_context import RequestContext
from service.inference.registry import ServedModel
from service.inference.results import Classification

_HEAD_LENGTH = b"inference-header-content-length"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_SMALL_BYTES = 256 * 1024  # of JSON that is parsed on the event loop
_SMALL_ROWS = 64
_ROWS_ON_TRUST = 64  # a client that has closed its sending half counts as disconnected beyond this number of rows


class InferEndpoint:
    """The inference endpoint of the protocol."""

    def __init__(self, serving: InferenceService, *, max_request_bytes: int, max_waiting: int) -> None:
        self._serving = serving
        self._max_request_bytes = max_request_bytes
        self._max_waiting = max_waiting
        self._reading_large = asyncio.Semaphore(1)  # parsing JSON takes several times its size in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        parameters = scope["path_params"]
        model = self._serving.registry.find_any(parameters["model"], parameters.get("version"))
        body = await read_body(receive)
        if body is None:
            return  # the client disconnected during the upload
        started = time.monotonic()
        try:
            call = await self._read(model, body, context)
            answers = await self._submit(model, call, context)
            answered = time.monotonic()
            written = (model, call, answers, context.headers.get(b"accept-encoding", b""))
            is_small = len(answers) <= _SMALL_ROWS
            answer, headers = _write_answer(*written) if is_small else await asyncio.to_thread(_write_answer, *written)
        except ServiceError:
            self._serving.metrics.note_failed_inference(model.info, time.monotonic() - started)
            raise
        done = time.monotonic()
        await _send(send, answer, headers)
        self._serving.metrics.note_inference(model.info, answers, done - started, done - answered)

    async def _read(self, model: ServedModel, body: bytes, context: RequestContext) -> InferCall:
        json_bytes = _json_bytes(context.headers)
        encoding = context.headers.get(b"content-encoding", b"").strip().lower()
        parsed_bytes = len(body) if json_bytes is None else json_bytes
        if encoding in (b"", b"identity") and parsed_bytes <= _SMALL_BYTES:
            return read_call(model, body, json_bytes, max_image_bytes=self._serving.max_image_bytes)
        async with self._reading_large:
            content = await asyncio.to_thread(unpacked, body, encoding, self._max_request_bytes)
            if content is not body:
                context.reserve(len(content))
            context.reserve(await asyncio.to_thread(parsing_bytes, content, json_bytes))
            return await asyncio.to_thread(
                read_call, model, content, json_bytes, max_image_bytes=self._serving.max_image_bytes
            )

    async def _submit(self, model: ServedModel, call: InferCall, context: RequestContext) -> list[Classification]:
        is_small = call.rows.count <= _ROWS_ON_TRUST
        options = SubmitOptions(
            is_awaited=context.is_awaited if is_small else lambda: not context.client_has_left(),
            expires_at=min(context.expires_at, time.monotonic() + call.timeout_s),
        )

        async def submit(number: int) -> Classification:
            try:
                answer = await self._serving.infer(model, call.job(number), options)
            except (NotAnImage, BadImage) as error:
                raise call.located(error, number) from None
            context.note_image(model.info, answer)
            return answer

        window = window_size(model.max_batch, self._serving.batcher.thread_count, self._max_waiting)
        return await gather_all(call.rows.count, submit, at_once=window)


def _json_bytes(headers: dict[bytes, bytes]) -> int | None:
    declared = headers.get(_HEAD_LENGTH)
    if declared is None:
        return None
    if _DIGITS.fullmatch(declared) is None:
        raise bad_tensor("Inference-Header-Content-Length must be a whole number.")
    return int(declared)


def _write_answer(
    model: ServedModel, call: InferCall, answers: list[Classification], accepted: bytes
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the body and its headers."""
    head = {"model_name": model.info.name, "model_version": model.info.version}
    if call.id is not None:
        head["id"] = call.id
    body, json_bytes = write_response(head, joined(model, call, answers))
    headers = [(b"vary", b"accept-encoding")]
    if json_bytes is None:
        headers.append((b"content-type", b"application/json"))
    else:
        headers += [(b"content-type", b"application/octet-stream"), (_HEAD_LENGTH, str(json_bytes).encode())]
    body, encoding = packed(body, accepted)
    if encoding is not None:
        headers.append((b"content-encoding", encoding))
    return body, [*headers, (b"content-length", str(len(body)).encode())]


async def _send(send: Send, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
