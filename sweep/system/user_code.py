"""Allow, locate, digest and load a user's own functions, named ``package.module:function``.

A function runs only if the user who starts the command named it, on the command line itself or by its top package in
``SWEEP_ALLOW``. Functions that only a YAML or a record names are refused. The parent reads the source and imports
nothing; the worker imports, once it has seen that the source is the planned one.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from sweep.errors import ConfigError, ConversionError, printable, shorten
from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

ALLOW = "SWEEP_ALLOW"
"""Environment variable: top packages, separated by commas, whose functions a YAML may name."""

_LOADERS = ("images", "tokens")  # as in model.calibration=images:FOLDER, which a YAML may say
_SPEC = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_named(text: str) -> bool:
    """Return whether ``text`` has the form ``package.module:function``, and is not a folder or file for a loader."""
    return _SPEC.fullmatch(text) is not None and text.partition(":")[0] not in _LOADERS


def refuse_unnamed(key: str, values: Iterable[str | None], typed: Sequence[str]) -> None:
    """Refuse a function that neither the command line nor the allowlist names.

    Args:
        key: configuration key that names functions.
        values: its value in each composed config; a value that is no function is ignored.
        typed: the words of the command line.

    Raises:
        ConfigError: a function is refused; with the function, and how to allow it.
    """
    arguments = " ".join(word.partition("=")[2] for word in typed if word.lstrip("+").partition("=")[0] == key)
    typed_names = set(re.split(r"[\s,'\"\[\]()]+", arguments))
    for value in filter(None, dict.fromkeys(values)):
        if is_named(value) and not _is_allowed(value, typed_names):
            raise ConfigError(
                f"{key}={value} stands in a YAML, and functions run only if you name them: type {key}={value} on the "
                f"command line, or set {ALLOW}={_top_package(value)}"
            )


def refuse_recorded(key: str, value: str, planned: str | None, typed: Collection[str]) -> None:
    """Refuse a function that a record names, unless its user names it too and the record states its source.

    Args:
        key: configuration key that named the function when it was measured.
        value: ``package.module:function`` as the record has it.
        planned: sha256 of its source file in the record; None where the record has none.
        typed: functions that the command line allows.

    Raises:
        ConfigError: the function is refused; with the function, and how to allow it.
    """
    name = shorten(printable(value))
    if planned is None:
        raise ConfigError(
            f"{key}={name}: the record does not state the sha256 of its source, so any function could bear the name; "
            f"measure the variant again"
        )
    if not _is_allowed(value, typed):
        raise ConfigError(
            f"{key}={name} stands in a record, and functions run only if you name them: add --allow {quote(name)}, or "
            f"set {ALLOW}={quote(_top_package(name))}"
        )


def _is_allowed(value: str, typed: Collection[str]) -> bool:
    """Return whether the command line or the allowlist names the function `value`."""
    return value in typed or _top_package(value) in {name.strip() for name in os.environ.get(ALLOW, "").split(",")}


def _top_package(value: str) -> str:
    return value.partition(":")[0].split(".")[0]


def digest(key: str, spec: str) -> str:
    """Return the sha256 of the source file of ``spec``, after a check that it defines the function.

    Only parent packages are imported.

    Args:
        key: configuration key that names the function, for messages.
        spec: ``package.module:function``.

    Raises:
        ConfigError: there is no such module, or no such function in it.
    """
    module, _, function = spec.partition(":")
    source = _source(module)
    if source is None:
        raise ConfigError(f"{key}={spec}: no Python source of module {module} in {Path.cwd()} or the environment")
    content = regular_files.read_bytes(source, follow=True)
    try:
        names = _top_level_names(ast.parse(content))
    except SyntaxError as error:
        raise ConfigError(f"{key}={spec}: {source} is no Python ({error.msg}, line {error.lineno})") from error
    if names is not None and function not in names:
        public_names = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"
        raise ConfigError(f"{key}={spec}: {source} does not define {function}; it defines {public_names}")
    return hashlib.sha256(content).hexdigest()


def _source(module: str) -> Path | None:
    with _importable_working_directory():
        importlib.invalidate_caches()
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # a parent package is missing, or is no package
            return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def _top_level_names(tree: ast.Module) -> set[str] | None:
    """Return the names that the module binds at its top; None where the source does not determine them."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(item.id for item in node.targets if isinstance(item, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((item.asname or item.name).split(".")[0] for item in node.names)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            return None
    return None if names & {"*", "__getattr__"} else names


def load(key: str, spec: str, planned: str | None) -> Callable[..., Any]:
    """Import a user's function and return it. Nothing of its module runs unless its source is the planned one.

    Args:
        key: configuration key that names it.
        spec: ``package.module:function``.
        planned: sha256 of the source at the time of planning; None is refused.

    Raises:
        ConversionError: the function cannot be imported, is no function, or its source has changed since.
    """
    module, _, function = spec.partition(":")
    if planned is None:
        raise ConversionError(f"{key}={spec}: the sha256 of its source is not stated; start the sweep again")
    try:
        is_planned = digest(key, spec) == planned
    except ConfigError as error:
        raise ConversionError(str(error)) from error
    if not is_planned:
        raise ConversionError(f"{key}={spec}: its source has changed since it was planned; start the sweep again")
    with _importable_working_directory():
        try:
            function_object = getattr(importlib.import_module(module), function)
        except Exception as error:
            text = " ".join(str(error).split())
            raise ConversionError(f"{key}={spec} cannot be imported: {type(error).__name__}: {text}") from error
    if not callable(function_object):
        raise ConversionError(f"{key}={spec} is a {type(function_object).__name__}, not a function")
    return function_object  # type: ignore[no-any-return]  # whatever the module holds


@contextlib.contextmanager
def _importable_working_directory() -> Iterator[None]:
    """Add the working directory to the import path, as `python -m` does and an installed command does not."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def batches(key: str, spec: str, planned: str | None) -> Iterator[Any]:
    """Yield the batches of a user's generator function, until it ends or yields None.

    Args:
        key: configuration key, for messages.
        spec: ``package.module:function``; called without arguments.
        planned: sha256 of its source when it was planned; None is refused.

    Raises:
        ConversionError: the function cannot be loaded, or raised.
    """
    function = load(key, spec, planned)
    try:
        values: Iterable[Any] = iter(function())
        while (batch := next(values, None)) is not None:  # type: ignore[call-overload]  # it is an iterator
            yield batch
    except Exception as error:
        text = " ".join(str(error).split()) or "no message"
        raise ConversionError(f"{key}={spec} raised {type(error).__name__}: {text}") from error
