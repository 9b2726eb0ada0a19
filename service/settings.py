"""Every setting of the server: type, unit, default, environment name and flag.

A field `max_queue` is the flag `--max-queue` and the environment variable `RESNET_MAX_QUEUE`; the flag wins.
Only the modules at the top of the program read it; they pass plain values on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.access_control.access_policy import read_hosts, read_origins, read_proxies
from service.model_files.default_model import RULE

ENVIRONMENT_PREFIX = "RESNET_"

_LIMITS = {"ge": "from", "gt": "above", "le": "to"}


def _readable_by(read: Callable[[str], object]) -> Callable[[str], str]:
    def check(text: str) -> str:
        read(text)
        return text

    return check


Port = Annotated[int, Field(ge=0, le=65_535)]
HostList = Annotated[str, AfterValidator(_readable_by(read_hosts))]
OriginList = Annotated[str, AfterValidator(_readable_by(read_origins))]
ProxyList = Annotated[str, AfterValidator(_readable_by(read_proxies))]
_WANTED = {
    "trusted_hosts": "names with commas, as in example.org,*.example.org",
    "cors_origins": "origins with commas, as in https://example.org,http://localhost:3000, or *",
    "trusted_proxies": "addresses or networks with commas, as in 10.0.0.0/8,192.0.2.1",
}


class Settings(BaseSettings):
    """What an operator can set. Raises pydantic's ValidationError for values that make no sense."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    models: Path = Field(
        Path("models"), description="Folder of models: <name>/<version>/model.onnx; or one model: its file or folder."
    )
    model_name: str | None = Field(
        None,
        min_length=1,
        description="Name of a single model of --models. [default: the name of its folder or file]",
    )
    default_model: str | None = Field(
        None,
        min_length=1,
        description="Model that answers when a request names none. "
        f"[default: the only one; of several {RULE}; with several of your own, name one]",
    )
    latest_versions: int = Field(
        1,
        ge=1,
        le=100,
        description="How many versions of each model serve, highest first; requests select one by name:version.",
    )
    load_timeout_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds a model that is loaded while others serve may take before it is refused; "
        "building TensorRT's engines takes minutes.",
    )
    model_keys: Path | None = Field(
        None,
        description="PEM file of public keys: a model serves only with a signature by one of them, in model.sig "
        "beside it. [default: signatures are not checked]",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for every network.")
    port: Port = Field(8000, description="Port to listen on; 0 picks a free one.")
    admin_host: str = Field("127.0.0.1", min_length=1, description="Address of the admin port.")
    admin_port: Port = Field(
        8001, description="Port of /metrics and for loading models, for operators; 0 picks a free one."
    )
    admin_keys_file: Path | None = Field(
        None,
        description="File of keys for loading models by the admin port: a line `name sha256-of-the-key` for each. "
        "[default: no key on the loopback address; loading is forbidden on others]",
    )
    providers: Literal["auto", "tensorrt", "cuda", "openvino", "cpu"] = Field(
        "auto",
        description="What runs the models: auto takes the best available, and on a CPU measures OpenVINO if it is "
        "installed; any other is required at the start.",
    )
    allow_bf16: bool = Field(
        False, description="OpenVINO may compute fp32 models in bf16; every answer names the precision."
    )
    processes: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Processes that run models. [default: by the speed of the default model, the usable cores or 1]",
    )
    engine_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads in each process that decode images and run models. "
        "[default: the usable cores, shared among the processes]",
    )
    max_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Most images in one batch; fewer on a CPU where they would take over 0.1 s, or a fifth of "
        "the age limit. [default: by the model's measured speed]",
    )
    max_queue: int = Field(256, ge=1, le=100_000, description="Most images in the queue; further requests get 503.")
    max_queue_age_s: float | None = Field(
        None,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds an image may wait before its request gets 503. "
        "[default: 5, without a limit for the first 64 outstanding images of a process]",
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds the whole body of a request may take to arrive; after 5 s also at least 16 KiB a second.",
    )
    max_image_bytes: int = Field(20 * 1024 * 1024, ge=1, le=2**31, description="Largest image file, in bytes.")
    max_pixels: int = Field(
        26_000_000,
        ge=1,
        le=1_000_000_000,
        description="Most pixels of an image that is decoded; a JPEG may have 8 times as many where it is decoded at a "
        "reduced scale, within the same memory. About 10 bytes of memory for each.",
    )
    max_side: int = Field(
        12_000, ge=1, le=1_000_000, description="Longest side of an image, in pixels; of a JPEG, once it is reduced."
    )
    max_request_bytes: int = Field(
        64 * 1024 * 1024, ge=1, le=2**31, description="Largest body of a request with several images, in bytes."
    )
    max_upload_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1,
        description="Most bytes of uploads in memory at once, beside one request a process; further ones get 503.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="File with a line `name sha256-of-the-key` for each API key; health, page and documents stay open. "
        "[default: no authentication]",
    )
    rate_limit_per_s: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Requests with images or tensors that one client may send a second, by its API key, or by its "
        "address without keys; further ones get 429. [default: no limit]",
    )
    rate_limit_burst: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Requests that a client may send at once before --rate-limit-per-s holds. "
        "[default: those of one second, at least 1]",
    )
    trusted_hosts: HostList | None = Field(
        None,
        description="Accepted host names, as in example.org,*.example.org; other Host headers get 400. The admin port "
        "accepts them beside addresses and private names. [default: any; on the admin port none]",
    )
    cors_origins: OriginList | None = Field(
        None,
        description="Origins whose pages may send requests, as in https://example.org; * for all. [default: none]",
    )
    trusted_proxies: ProxyList | None = Field(
        None,
        description="Addresses and networks of proxies whose X-Forwarded-For is used, in the log and for rate limits, "
        "as in 10.0.0.0/8. [default: none]",
    )
    log: Literal["auto", "json", "text", "off"] = Field(
        "auto",
        description="A line a request on stderr, as JSON or text; auto: text on a terminal, else JSON; "
        "off: only messages of the server itself.",
    )
    label_metrics: int = Field(
        0,
        ge=0,
        le=1000,
        description="Labels of each model that resnet_predictions_total counts, the first of its card; others count "
        "as `other`. 0: neither this metric nor resnet_confidence.",
    )
    trace_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Part of the requests without a traceparent header that are traced; the flag of the header decides "
        "on the others. Without OTEL_EXPORTER_OTLP_ENDPOINT nothing is traced.",
    )
    max_connection_age_s: float | None = Field(
        None,
        ge=1,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds, within 10%, after which a response closes its connection, so that clients with "
        "keep-alive also reach new replicas. [default: no limit]",
    )
    drain_delay_s: float = Field(
        1.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds after SIGTERM in which requests are still accepted, for load balancers to notice. "
        "With the default delay and timeout a stop takes at most 10 s; larger ones add to that.",
    )
    drain_timeout_s: int = Field(
        5,
        ge=1,
        le=600,
        description="Seconds after that until unanswered requests are aborted; "
        "with --drain-delay-s it decides how long a stop takes, at most 10 s by default.",
    )


def expected_value(name: str) -> str:
    """Return the valid values of a setting as a text: "a whole number from 0 to 65535"."""
    if name in _WANTED:
        return _WANTED[name]
    field = Settings.model_fields[name]
    kinds = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(kinds)}"
    if not {int, float} & {field.annotation, *kinds}:
        return "a text that is not empty"
    kind = "a whole number" if int in (field.annotation, *kinds) else "a number"
    limits = {
        limit: value
        for rule in field.metadata
        for limit in _LIMITS
        if (value := getattr(rule, limit, None)) is not None
    }
    return " ".join([kind, *(f"{word} {limits[limit]}" for limit, word in _LIMITS.items() if limit in limits)])
