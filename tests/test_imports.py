"""Who may import whom: read from the sources, and tried once for real."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "training", "export")

# Folder or file → first words of imports that it may not have.
FORBIDDEN = {
    "service": {"torch", "training", "export"},
    "training": {"export", "fastapi", "onnxruntime"},
    "export": {"fastapi", "starlette", "uvicorn"},
    "service/batcher.py": {"numpy", "onnxruntime", "fastapi", "starlette"},
    "service/jobs.py": {"numpy", "onnxruntime", "fastapi", "starlette"},
    "service/classifier.py": {"fastapi", "starlette", "onnxruntime"},
    "service/engine.py": {"fastapi", "starlette", "onnxruntime"},
    "service/preprocess.py": {"fastapi", "starlette", "onnxruntime"},
    "service/image_header.py": {"fastapi", "PIL", "numpy"},
    "service/jpeg_segments.py": {"fastapi", "PIL", "numpy"},
    "service/orientation.py": {"fastapi", "PIL", "numpy"},
    "service/foreign_files.py": {"fastapi", "PIL", "numpy"},
    "service/registry.py": {"fastapi", "starlette"},
    "service/api": {"onnxruntime", "PIL"},
    "service/api/classify.py": {"numpy"},
}

# Folder → the modules of `service` that it may import, and which of its files may.
BORROWED = {
    "export": (
        {"model_card", "confidence", "preprocess", "engine", "provider_options", "errors", "seal", "cores"},
        None,
    ),
    "training": (
        {"preprocess", "errors", "cores", "control_groups"},
        {
            "decoding.py",
            "evaluate.py",
            "packing.py",
            "capacity.py",
            "data.py",
            "cli.py",
            "evaluate_run.py",
            "hardware.py",
            "pictures.py",
            "prepare.py",
            "reader.py",
            "run_folder.py",
            "windows.py",
        },
    ),
}

# From the top of the request's path to its bottom: nobody imports what stands above.
LAYERS = (
    ("__main__", "cli"),
    ("supervisor", "worker", "examination"),
    ("first_lineup", "totals"),
    ("admin", "server", "client", "named_pictures", "reloads", "takeover", "ending"),
    ("examiner",),
    ("app", "settings", "offspring", "pipe"),
    ("api", "admission", "connection", "listener", "acceptor"),
    ("parsing",),
    ("request_head", "reading_flow", "turns"),
    ("access", "log_lines", "wire_refusals"),
    ("exchange", "metrics", "dialect", "problem", "readiness"),
    ("exposition", "inference_counts"),
    ("registry", "explanation", "embedding", "greeting"),
    ("graph_model",),
    ("classifier", "row_mixing", "rows_alone"),
    ("acceptance", "batcher", "engine", "preprocess", "heat_map", "layout"),
    ("image_limits", "truncated_jpeg"),
    ("gpu_start", "provider_choice", "kept_models"),
    ("contract", "cpu_sessions", "gpu_sessions", "cuda_memory", "tensorrt_engines"),
    (
        "jobs",
        "room",
        "speeds",
        "runtime",
        "memory",
        "out_of_memory",
        "gpu_device",
        "cuda_errors",
        "private_cache",
        "cores",
    ),
    ("provider_options",),
    ("model_card",),
    (
        "confidence",
        "tensor_spec",
        "image_header",
        "errors",
        "seal",
        "resize",
        "simd_resize",
        "decoders",
        "jpeg_segments",
        "orientation",
        "foreign_files",
        "milliseconds",
        "background",
        "board",
        "pulse",
        "graph_file",
        "restarts",
        "signals",
    ),
    ("api_keys", "route_names", "log_writer", "tracing", "repository", "control_groups"),
    ("permissions", "default_model"),
)
READ_SETTINGS = {"__main__.py", "app.py", "cli.py", "examination.py", "worker.py"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def sources(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def layer_of(module: str) -> int | None:
    """The number of a module's layer, counted from the top; `module` is what follows `service.`."""
    name = module.split(".", maxsplit=1)[0]
    return next((number for number, names in enumerate(LAYERS) if name in names), None)


@pytest.mark.parametrize("place", FORBIDDEN)
def test_forbidden_imports_are_not_there(place: str) -> None:
    files = sources(place)
    assert files
    for file in files:
        found = {module.split(".")[0] for module in imports(file)} & FORBIDDEN[place]
        assert not found, f"{file.relative_to(ROOT)} imports {found}"


@pytest.mark.parametrize("place", BORROWED)
def test_the_other_packages_borrow_from_the_service_only_what_serves_too(place: str) -> None:
    allowed, borrowers = BORROWED[place]
    for file in sources(place):
        borrowed = {module.removeprefix("service.") for module in imports(file) if module.startswith("service")}
        assert borrowed <= allowed, f"{file.relative_to(ROOT)} imports {borrowed - allowed}"
        if borrowers is not None and borrowed:
            assert file.name in borrowers, f"{file.relative_to(ROOT)} imports of service: {borrowed}"


def test_every_module_of_the_service_has_its_layer() -> None:
    for file in sources("service"):
        name = file.relative_to(ROOT / "service").parts[0].removesuffix(".py")
        assert name == "__init__" or layer_of(name) is not None, f"{name} is in no layer"


def test_inside_the_service_imports_go_down_only() -> None:
    for file in sources("service"):
        name = file.relative_to(ROOT / "service").parts[0].removesuffix(".py")
        for module in imports(file):
            if module.startswith("service.") and name != "__init__":
                above, below = layer_of(name), layer_of(module.removeprefix("service."))
                assert above is not None and below is not None, f"{name} imports {module}"
                assert above <= below, f"{name} imports {module}"


def test_settings_are_read_at_the_top_and_passed_on_as_plain_values() -> None:
    for file in sources("service"):
        if "service.settings" in imports(file):
            assert file.name in READ_SETTINGS, f"{file.relative_to(ROOT)} reads the settings"


def test_one_file_knows_the_runtime() -> None:
    users = [file.name for file in sources("service") if "onnxruntime" in set(imports(file))]
    assert users == ["runtime.py"]


def test_one_file_knows_the_package_for_checking_files_and_it_runs_in_a_process_of_its_own() -> None:
    users = [file.name for file in sources("service") if "onnx" in set(imports(file))]
    assert users == ["examination.py"]


def run(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_service_works_where_torch_cannot_be_imported() -> None:
    run("import sys; sys.modules['torch'] = None; import service.app, service.worker, service.cli")


def test_the_service_loads_nothing_at_its_start_that_it_does_not_need() -> None:
    loaded = run("import sys, service.app, service.worker; print(*sys.modules)").split()
    assert not {"torch", "onnx", "training", "export", "matplotlib", "httpx", "pandas", "scipy"} & set(loaded)


def test_the_supervisor_stays_small() -> None:
    loaded = run("import sys, service.supervisor, service.__main__; print(*sys.modules)").split()
    assert not {"fastapi", "onnxruntime", "numpy", "PIL", "uvloop"} & set(loaded)


def test_the_command_line_explains_itself_before_the_slow_imports() -> None:
    loaded = run("import sys, service.__main__; print(*sys.modules)").split()
    assert not {"fastapi", "onnxruntime", "numpy"} & set(loaded)
