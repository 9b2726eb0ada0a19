"""Writer of configuration.md, the table of all settings, from `service.settings.Settings`.

python -m docs.generate_configuration

A test holds the file equal to what this module returns.
"""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from service.settings import ENVIRONMENT_PREFIX, Settings, expected_value

FILE = Path(__file__).with_name("configuration.md")
_GROUPS = {
    "Models": ("models", "model_name", "default_model", "latest_versions", "load_timeout_s", "model_keys"),
    "Addresses": ("host", "port", "admin_host", "admin_port"),
    "Processes and providers": ("providers", "allow_bf16", "processes", "engine_threads", "max_batch"),
    "Queue": ("max_queue", "max_queue_age_s"),
    "Limits of requests": (
        "body_timeout_s",
        "max_image_bytes",
        "max_pixels",
        "max_side",
        "max_request_bytes",
        "max_upload_bytes",
    ),
    "Access": (
        "api_keys_file",
        "admin_keys_file",
        "rate_limit_per_s",
        "rate_limit_burst",
        "trusted_hosts",
        "cors_origins",
        "trusted_proxies",
    ),
    "Log, metrics, connections and stop": (
        "log",
        "label_metrics",
        "trace_ratio",
        "max_connection_age_s",
        "drain_delay_s",
        "drain_timeout_s",
    ),
}
_UNITS = {
    "latest_versions": "versions",
    "processes": "processes",
    "engine_threads": "threads",
    "max_batch": "images",
    "max_queue": "images",
    "rate_limit_per_s": "requests a second",
    "rate_limit_burst": "requests",
    "label_metrics": "labels",
    "max_pixels": "pixels",
    "max_side": "pixels",
}
_SUFFIXES = {"_s": "seconds", "_bytes": "bytes"}
_DEFAULT_IN_WORDS = re.compile(r" *\[default: (.*)\]$")
_HEAD = """# Configuration

This page is generated from `service/settings.py`: `python -m docs.generate_configuration`.

Each setting is a flag of `serve-resnet` and an environment variable. The flag wins over the variable, and the variable
over the default. An empty variable counts as unset. An unknown flag, or a value outside its limits, stops the start
with one line that names the flag, the variable and the allowed values.

`make serve ARGS="--port 9000"` passes flags on. Compose reads the variables from `.env`; `.env.example` lists them
beside the settings of compose itself. The image sets `RESNET_HOST` and `RESNET_ADMIN_HOST` to `0.0.0.0` and
`RESNET_MODELS` to `/models`. [deployment.md](deployment.md) says which settings a production server needs.
"""
_TAIL = """
## Variables that are not settings

| variable | used by | meaning |
|---|---|---|
| `XDG_CACHE_HOME` | all programs | Parent of the cache folder `resnet-service`; unset: `~/.cache`. |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | `serve-resnet` | Receiver of [traces](traces.md), `http://127.0.0.1:4318`. |
| `RESNET_API_KEY` | `classify --server` | The API key that is sent to the server. |
| `RESNET_WEIGHTS_MIRROR` | `train-resnet`, `export-onnx` | Web folder that replaces the publishers of weights. |
| `NVIDIA_TF32_OVERRIDE` | `serve-resnet` on GPUs | `1` permits TF32; the golden example may then fail. |
"""


def configuration() -> str:
    """Return the text of configuration.md. Raises ValueError for a setting that is in no group."""
    grouped = [name for names in _GROUPS.values() for name in names]
    if left_out := set(Settings.model_fields).symmetric_difference(grouped):
        raise ValueError(f"_GROUPS and Settings differ: {', '.join(sorted(left_out))}; change _GROUPS")
    return _HEAD + "".join(_section(title, names) for title, names in _GROUPS.items()) + _TAIL


def _section(title: str, names: tuple[str, ...]) -> str:
    rows = "".join(f"{_row(name)}\n" for name in names)
    return f"\n## {title}\n\n| flag, variable | default | unit, values | meaning |\n|---|---|---|---|\n{rows}"


def _row(name: str) -> str:
    description = Settings.model_fields[name].description or ""
    flag = f"`--{name.replace('_', '-')}`<br>`{ENVIRONMENT_PREFIX}{name.upper()}`"
    meaning = _DEFAULT_IN_WORDS.sub("", description).replace("<", "&lt;").replace("*", "\\*")
    return f"| {flag} | {_default(name, description)} | {_values(name)} | {meaning} |"


def _default(name: str, description: str) -> str:
    in_words = _DEFAULT_IN_WORDS.search(description)
    if in_words:
        return in_words[1].replace("*", "\\*")
    default = Settings.model_fields[name].default
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default:,}`" if isinstance(default, int) and default > 65_535 else f"`{default}`"


def _values(name: str) -> str:
    kind = Settings.model_fields[name].annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    unit = _UNITS.get(name) or next((unit for suffix, unit in _SUFFIXES.items() if name.endswith(suffix)), None)
    kinds = {kind, *get_args(kind)}
    if Path in kinds:
        return "path"
    limits = expected_value(name).replace("*", "\\*")
    return limits if unit is None else f"{unit}; {limits}"


if __name__ == "__main__":
    FILE.write_text(configuration(), encoding="utf-8")
