"""The options of an earlier `train-resnet run`, as its run.json records them, for `run --resume RUN`."""

from pathlib import Path
from typing import Any

import typer

from training.cli.failure import fail

_NOT_RECORDED = frozenset(("run", "out", "resume", "dry_run", "overfit_batch"))
_PATHS = ("data", "test_data", "weights")


def typed_options(context: typer.Context) -> dict[str, Any]:
    """Return the options that were typed, or that an earlier command had, as JSON."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in context.params.items()
        if name not in _NOT_RECORDED and _source(context, name) in ("COMMANDLINE", "DEFAULT_MAP")
    }


def take_options_of(context: typer.Context, run: Path | None) -> Path | None:
    """Make the options that a run records the defaults of this command; those that are typed take their place."""
    from training.runs.record import RecordError, read_facts

    if run is None:
        return None
    try:
        facts = read_facts(run)
    except RecordError as error:
        fail(f"{error}; give --resume the folder of a run")
    recorded = facts.get("command")
    if not recorded:
        fail(f"{run} is of an earlier version, which recorded no options; give the same ones, --resume and --out {run}")
    paths = {name: _found(recorded[name], run) for name in _PATHS if name in recorded}
    context.default_map = recorded | paths | {"out": str(run), "resizer": facts["resizer"]}
    return run


def without_recorded_lengths(context: typer.Context, lengths: dict[str, float | None]) -> dict[str, float | None]:
    """Return the lengths that count: those that are typed, or else those of the earlier command."""
    typed = {name for name in lengths if _source(context, name) == "COMMANDLINE"}
    return {name: None if typed and name not in typed else length for name, length in lengths.items()}


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source else ""


def _found(path: str, run: Path) -> str:
    """Return a path as seen from the current folder, if the run was started in a folder above it."""
    places = (start / path for start in (Path.cwd(), *run.resolve().parents))
    return str(next((place for place in places if place.exists()), path))
