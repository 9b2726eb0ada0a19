"""Who may import whom: read from the sources, and tried once for real."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "training", "export")
FOLDERS = (*PACKAGES, "resnet_service", "benchmarks", "deploy", "tests")
MOST_FILES = 17  # of Python in one folder: more are two concerns
CROWDED = {"training/report": 24, "tests/reliability": 22, "training/runs": 18}  # still to be split; may only shrink

# Folder or file → first words of imports that it may not have.
FORBIDDEN = {
    "service": {"torch", "training", "export", "resnet_service"},
    "resnet_service": {"torch", "training", "export", "fastapi", "starlette", "onnxruntime"},
    "training": {"export", "fastapi", "onnxruntime"},
    "export": {"fastapi", "starlette", "uvicorn"},
    "service/batching/batcher.py": {"numpy", "onnxruntime", "fastapi", "starlette"},
    "service/batching/jobs.py": {"numpy", "onnxruntime", "fastapi", "starlette"},
    "service/inference/classifier.py": {"fastapi", "starlette", "onnxruntime"},
    "service/engine/engine.py": {"fastapi", "starlette", "onnxruntime"},
    "service/images/preprocessing.py": {"fastapi", "starlette", "onnxruntime"},
    "service/images/header.py": {"fastapi", "PIL", "numpy"},
    "service/images/jpeg_segments.py": {"fastapi", "PIL", "numpy"},
    "service/images/orientation.py": {"fastapi", "PIL", "numpy"},
    "service/images/file_types.py": {"fastapi", "PIL", "numpy"},
    "service/inference/registry.py": {"fastapi", "starlette"},
    "service/api": {"onnxruntime", "PIL"},
    "service/api/endpoints/classify.py": {"numpy"},
}

# Package → the modules of `service` that it may import, and which of its files may.
BORROWED = {
    "export": (
        {
            "model_files.card",
            "model_files.checksum",
            "model_files.confidence",
            "model_files.repository",
            "model_files.signature",
            "images.preprocessing",
            "engine.engine",
            "engine.provider_options",
            "errors",
            "system.cores",
        },
        None,
    ),
    "training": (
        {"images.preprocessing", "model_files.card", "errors", "system.cache", "system.cores", "system.control_groups"},
        {
            "decoder_process.py",
            "evaluate.py",
            "packing.py",
            "published.py",
            "memory_budget.py",
            "dataset.py",
            "converted.py",
            "evaluate_command.py",
            "devices.py",
            "data_reader.py",
            "run_command.py",
            "training_set.py",
            "setup.py",
            "folder.py",
            "record.py",
            "options.py",
            "crops.py",
        },
    ),
}

# Folders and files of each package, top to bottom: each imports only from lines below its own.
LAYERS = {
    "service": "__main__ cli | flags supervisor worker | model_updates app http_server | lifespan processes"
    " | api settings | http | access_control telemetry | inference | batching engine images | model_files"
    " | errors system version",
    "service.api": "admin health models pages compatibility | openapi"
    " | v2 huggingface torchserve torchserve_management openai | endpoints"
    " | parsing",
    "training": "__main__ | cli | report finished_runs | runs | trainer evaluation | data"
    " | augmentation data_files weights | hardware recipes | networks",
    "benchmarks.serving": "__main__ | campaign | reports | overload | duel | wrk | servers | clients peers | progress",
    "tests.support": "kubernetes_tools strict_schemas monitoring container fake_gpu fake_worker data_layouts"
    " | servers runs model_files"
    " | image_files",
    "export": "cli | export | resolve_source reduced_precision card_builder triton_config | verification | sources"
    " | next_step | graph model_file | signing | errors options",
}
READ_SETTINGS = {
    "__main__.py",
    "app.py",
    "flags.py",
    "lifespan.py",
    "options.py",
    "validation_process.py",
    "worker.py",
}


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


def layers_of(package: str) -> dict[str, int]:
    """The number of each name's layer in a package, counted from the top."""
    lines = LAYERS[package].split("|")
    return {name: number for number, line in enumerate(lines) for name in line.split()}


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


@pytest.mark.parametrize("package", LAYERS)
def test_imports_between_folders_go_down_only(package: str) -> None:
    layers, folder = layers_of(package), ROOT / package.replace(".", "/")
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(folder).parts[0].removesuffix(".py")
        if name == "__init__" or "results" in file.parts:
            continue
        assert name in layers, f"{name} is in no layer of {package}"
        for module in imports(file):
            if module.startswith(f"{package}."):
                other = module.removeprefix(f"{package}.").split(".")[0]
                assert other == name or layers[name] < layers[other], f"{file.relative_to(ROOT)} imports {module}"


def test_no_folder_has_more_python_files_than_a_reader_can_survey() -> None:
    counts = Counter(file.parent for place in FOLDERS for file in sources(place))
    assert counts[ROOT / "service"] > 1
    named = {str(folder.relative_to(ROOT)): count for folder, count in counts.items()}
    crowded = {name: count for name, count in named.items() if count > CROWDED.get(name, MOST_FILES)}
    assert not crowded, f"more than {MOST_FILES} files: {crowded}; split the folder by concern"


def test_settings_are_read_at_the_top_and_passed_on_as_plain_values() -> None:
    for file in sources("service"):
        if "service.settings" in imports(file):
            assert file.name in READ_SETTINGS, f"{file.relative_to(ROOT)} reads the settings"


def test_one_file_counts_cores_so_that_every_program_obeys_the_quota_of_its_container() -> None:
    files = [file for place in (*PACKAGES, "benchmarks") for file in sources(place)]
    counters = ("sched_getaffinity", "cpu_count", "process_cpu_count")
    users = [file for file in files if any(counter in file.read_text() for counter in counters)]
    assert [str(file.relative_to(ROOT)) for file in users] == ["service/system/cores.py"]


def test_one_file_knows_the_runtime() -> None:
    users = [file.name for file in sources("service") if "onnxruntime" in set(imports(file))]
    assert users == ["onnx_runtime.py"]


def test_one_file_knows_the_package_for_checking_files_and_it_runs_in_a_process_of_its_own() -> None:
    users = [file.name for file in sources("service") if "onnx" in set(imports(file))]
    assert users == ["validation_process.py"]


def run(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_service_works_where_torch_cannot_be_imported() -> None:
    run("import sys; sys.modules['torch'] = None; import service.app, service.worker.worker, service.cli.classify")


def test_the_service_loads_nothing_at_its_start_that_it_does_not_need() -> None:
    loaded = run("import sys, service.app, service.worker.worker; print(*sys.modules)").split()
    assert not {"torch", "onnx", "training", "export", "matplotlib", "httpx", "pandas", "scipy"} & set(loaded)


def test_the_supervisor_stays_small() -> None:
    loaded = run("import sys, service.supervisor.supervisor, service.__main__; print(*sys.modules)").split()
    assert not {"fastapi", "onnxruntime", "numpy", "PIL", "uvloop"} & set(loaded)


def test_the_command_line_explains_itself_before_the_slow_imports() -> None:
    loaded = run("import sys, service.__main__; print(*sys.modules)").split()
    assert not {"fastapi", "onnxruntime", "numpy"} & set(loaded)
