"""The messages between the supervisor and its child processes, and their encoding: one JSON object a line.

Every message is a frozen dataclass whose `kind` selects its type. A `number` links a reply to its request. Models
change in two steps: `Prepare` loads files beside those that serve, `Commit` switches to a set of loaded files.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import Field, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core.core_schema import no_info_plain_validator_function

from service.inference.layout import WorkerLayout
from service.model_files.repository import ModelFile, ServingSet
from service.telemetry.prometheus import Snapshot

_SHOWN_BYTES = 100  # of a malformed message


class MessageError(Exception):
    """A line is not a valid message, or a message is not one that its receiver handles."""


def _check_snapshot(value: Any) -> Any:
    """Check the outline only: a snapshot has hundreds of numbers, and every worker sends one each second."""
    if not isinstance(value, dict) or not Snapshot.__required_keys__ <= value.keys():
        raise ValueError(f"a snapshot has the keys {', '.join(sorted(Snapshot.__required_keys__))}")
    return value


_Snapshot = Annotated[Snapshot, GetPydanticSchema(lambda *_: no_info_plain_validator_function(_check_snapshot))]


# From the supervisor to a worker.


@dataclass(frozen=True, slots=True)
class Ping:
    """A request for `Health`."""

    number: int
    kind: Literal["ping"] = "ping"


@dataclass(frozen=True, slots=True)
class Prepare:
    """A request to load files beside those that serve; `Reply` answers it."""

    number: int
    files: tuple[ModelFile, ...]
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True)
class Commit:
    """A request to serve these models, all of them loaded, and no others; `Reply` answers it."""

    number: int
    serving_set: ServingSet
    kind: Literal["commit"] = "commit"


@dataclass(frozen=True, slots=True)
class StatisticsReply:
    """The statistics of all processes, added up."""

    number: int
    statistics: _Snapshot
    kind: Literal["statistics_reply"] = "statistics_reply"


@dataclass(frozen=True, slots=True)
class BecomeReady:
    """The order to report readiness: all workers have loaded their models."""

    kind: Literal["become_ready"] = "become_ready"


@dataclass(frozen=True, slots=True)
class Stop:
    """The order to drain and exit."""

    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True)
class StopNow:
    """The order to cut a drain short."""

    kind: Literal["stop_now"] = "stop_now"


# From a worker to the supervisor.


@dataclass(frozen=True, slots=True)
class Loaded:
    """The models of a new worker are loaded."""

    layout: WorkerLayout
    files: tuple[ModelFile, ...]  # each with its digest and the measured batch size
    kind: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """A worker cannot start; `reason` is one line for an operator."""

    reason: str
    kind: Literal["start_failure"] = "start_failure"


@dataclass(frozen=True, slots=True)
class Health:
    """The reply to `Ping`: the state of the engine threads, and this worker's statistics."""

    number: int  # 0: unsolicited, the last message of a worker
    is_healthy: bool
    statistics: _Snapshot
    kind: Literal["health"] = "health"


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to `Prepare` and `Commit`."""

    number: int
    failure: str | None  # None: success
    max_batches: dict[str, int] = field(default_factory=dict)  # measured, by SHA-256
    kind: Literal["reply"] = "reply"


@dataclass(frozen=True, slots=True)
class StatisticsRequest:
    """A request for the statistics of all processes; `StatisticsReply` answers it."""

    number: int
    kind: Literal["statistics_request"] = "statistics_request"


# From a validation process to the supervisor.


@dataclass(frozen=True, slots=True)
class FileAccepted:
    """A model file may be loaded."""

    sha256: str
    has_card: bool
    kind: Literal["file_accepted"] = "file_accepted"


@dataclass(frozen=True, slots=True)
class FileRefused:
    """A model file may not be loaded; `reason` names no path."""

    reason: str
    kind: Literal["file_refused"] = "file_refused"


ToWorker: TypeAlias = Ping | Prepare | Commit | StatisticsReply | BecomeReady | Stop | StopNow
FromWorker: TypeAlias = Loaded | StartFailure | Health | Reply | StatisticsRequest
FromValidation: TypeAlias = FileAccepted | FileRefused
Message: TypeAlias = ToWorker | FromWorker | FromValidation

_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def encode(message: Message) -> bytes:
    """Return a message as one line of JSON."""
    return orjson.dumps(message, default=str, option=orjson.OPT_APPEND_NEWLINE)  # str: a path


def decode(line: bytes) -> Message:
    """Return the message of one line. Raises MessageError for an unknown kind and for missing or invalid fields."""
    try:
        return _MESSAGES.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MessageError(f"malformed message: {line[:_SHOWN_BYTES]!r}; {where}: {first['msg']}") from None
