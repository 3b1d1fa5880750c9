"""A package's ``__init__`` is its face: what it names in ``__all__`` is all that others import of it."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sweep

ROOT = Path(sweep.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py" and name != "sweep"}


def faces() -> dict[str, list[str]]:
    """Read ``__all__`` of each package; a face with a stub computes it."""
    return {name: list(getattr(importlib.import_module(name), "__all__", [])) for name in PACKAGES}


FACES = faces()


def imported(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything of this distribution that a module imports, for the type checker too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports by a relative name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def hidden(importer: str, name: str) -> str | None:
    """Return the package whose face does not have what `importer` takes from it; None if every face has it."""
    parts = name.split(".")
    for depth in range(2, len(parts)):
        package = ".".join(parts[:depth])
        if package not in PACKAGES or importer.split(".")[1:2] == parts[1:2]:
            continue
        inner = parts[depth]
        if inner not in FACES.get(package, []) or (depth + 1 < len(parts) and f"{package}.{inner}" not in PACKAGES):
            return package
    return None


@pytest.mark.parametrize("importer", sorted(MODULES))
def test_a_module_imports_other_packages_through_their_faces(importer: str) -> None:
    deep = [
        f"{MODULES[importer].relative_to(ROOT.parent)}:{line} {name}"
        for line, name in imported(importer)
        if name.startswith("sweep.") and hidden(importer, name)
    ]
    assert deep == []


@pytest.mark.parametrize("package", sorted(FACES))
def test_a_face_names_what_the_package_has(package: str) -> None:
    scope: dict[str, object] = {}
    exec(f"from {package} import *", scope)  # noqa: S102 - what __all__ names is what this imports
    assert set(FACES[package]) <= scope.keys()


@pytest.mark.parametrize(
    ("importer", "name", "package"),
    [
        ("sweep.runner.plan", "sweep.storage.record.Record", "sweep.storage"),
        ("sweep.runner.plan", "sweep.storage.Record", None),
        ("sweep.runner.plan", "sweep.storage.samples_file", None),
        ("sweep.runner.plan", "sweep.storage.samples_file.load", "sweep.storage"),
        ("sweep.runner.plan", "sweep.storage.nothing", "sweep.storage"),
        ("sweep.runner.plan", "sweep.storage.cache.Cache", None),
        ("sweep.runner.plan", "sweep.storage.cache.store.Cache", "sweep.storage.cache"),
        ("sweep.storage.store", "sweep.storage.record.Record", None),
        ("sweep.storage.store", "sweep.storage.cache.store.Cache", None),
        ("sweep.storages", "sweep.storage.record.Record", "sweep.storage"),
        ("sweep.runner.plan", "sweep.errors.RecordError", None),
    ],
)
def test_what_counts_as_through_a_face(importer: str, name: str, package: str | None) -> None:
    assert hidden(importer, name) == package


def test_the_faces_of_the_packages_load_no_inference_library_and_no_numpy() -> None:
    """A face with a stub loads a module when a name of it is used: `sweep --help` and completion stay quick."""
    stubs = sorted(name for name in PACKAGES if MODULES[name].with_suffix(".pyi").exists())
    code = f"import importlib, sys; [importlib.import_module(name) for name in {stubs!r}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(stubs) > 4
    assert not {"numpy", "onnx", "onnxruntime", "mlflow", "hydra", "plotly"} & set(loaded)
