# ruff: noqa: INP001 - Sphinx finds it by its folder; the docs are no package
"""Generate the reference of every key, record field, column and finding from the code, when the site is built.

A page of ``PAGES`` holds hand-written text and the comment ``<!-- generated -->``, which is replaced by one section
per dataclass. Names, types, defaults and one line of description come from the dataclasses themselves: from the
``help`` of a field's metadata, else from the ``Attributes:`` section of the class's docstring.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

SCHEMA = "sweep.config.schema:Config"
RECORD = "sweep.storage.record:Record"
NESTED = {"model.inputs": "sweep.config.schema:InputConfig"}  # what the values of an untyped mapping are
PAGES = {"reference/keys": (SCHEMA, "confval"), "reference/record": (RECORD, "recordfield")}  # page: root, directive
FINDINGS = "reference/findings"  # page with the rules and peaks of ``sweep.analysis.layers``
TABLES = "reference/columns"  # page with a placeholder for each table of ``sweep.report.frame_columns``
PLACEHOLDER = "<!-- generated -->"

_ENTRY = re.compile(r"^    (?P<names>\w+(?:, \w+)*):(?P<text>.*)")
_UNION = (typing.Union, types.UnionType)
_WORDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    list: "list",
    tuple: "list",
    dict: "table",
    Any: "any",
    type(None): "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Describe one key or field.

    Attributes:
        name: dotted name, such as ``slo.p99_ms`` or ``points[].verdict``.
        kind: type in words.
        default: default as it is typed on a command line; None if the field has to be given.
        text: description, in Markdown.
    """

    name: str
    kind: str
    default: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Hold the entries of one dataclass or TypedDict.

    Attributes:
        name: dotted name of the table; empty for the root.
        text: first paragraph of the class's docstring.
        entries: its plain fields.
    """

    name: str
    text: str
    entries: tuple[Entry, ...]


def sections(root: type, nested: dict[str, type] | None = None) -> Iterator[Section]:
    """Yield the section of ``root`` and of every table below it, parents first.

    Args:
        root: dataclass or TypedDict.
        nested: classes of the values of mappings whose annotation does not name them, by dotted name.
    """
    yield from _sections(root, "", nested or {})


def _sections(kind: type, name: str, nested: dict[str, type]) -> Iterator[Section]:
    told = attributes(kind)
    entries, inner = [], []
    for item, annotation, meta, default in _fields(kind):
        dotted = f"{name}.{item}" if name else item
        below = _below(annotation, dotted, nested)
        if below:
            inner.append(below)
        text = meta.get("help") or told.get(item, "")
        if text or below is None:
            entries.append(Entry(name=dotted, kind=words(annotation), default=default, text=text))
    yield Section(name=name, text=_summary(kind), entries=tuple(entries))
    for table, dotted in inner:
        yield from _sections(table, dotted, nested)


def _fields(kind: type) -> Iterator[tuple[str, Any, dict[str, Any], str | None]]:
    """Yield name, annotation, metadata and default of every field of a dataclass or TypedDict."""
    hints = resolved_hints(kind)
    if not dataclasses.is_dataclass(kind):
        for name, annotation in hints.items():
            yield name, annotation, {}, None
        return
    for item in dataclasses.fields(kind):
        yield item.name, hints[item.name], dict(item.metadata), _default(item)


def _default(item: dataclasses.Field[Any]) -> str | None:
    """Return a field's default as typed on a command line, or None if it has none or is a table."""
    value = item.default
    if item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    if value is dataclasses.MISSING or dataclasses.is_dataclass(value):
        return None
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def resolved_hints(kind: type) -> dict[str, Any]:
    """Return the resolved annotations of ``kind``, those imported under ``TYPE_CHECKING`` included."""
    module = sys.modules[kind.__module__]
    names = dict(vars(module))
    for block in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test):
            for line in block.body:
                if isinstance(line, ast.ImportFrom) and line.module:
                    source = importlib.import_module(line.module)
                    names |= {name.asname or name.name: getattr(source, name.name) for name in line.names}
    return typing.get_type_hints(kind, names)


def _below(annotation: Any, dotted: str, nested: dict[str, type]) -> tuple[type, str] | None:
    """Return the table that an annotation holds, with its name: ``x``, ``x[]`` of a list, ``x.NAME`` of a dict."""
    if dotted in nested:
        return nested[dotted], f"{dotted}.NAME"
    if dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation):
        return annotation, dotted
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    suffix = {list: "[]", tuple: "[]", dict: ".NAME"}.get(origin, "")
    parts = inner[1:] if origin is dict else inner
    if origin in _UNION or suffix:
        return next((found for part in parts if (found := _below(part, f"{dotted}{suffix}", nested))), None)
    return None


def words(annotation: Any) -> str:
    """Return a type in words: ``integer or null``, ``list of text``."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNION:
        kinds = list(dict.fromkeys(words(part) for part in inner))
        return " or ".join(kind for kind in kinds if kind != "integer" or "number" not in kinds)
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin in (list, tuple) and inner and inner[0] is not Any:
        return f"list of {words(inner[0])}"
    if dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation):
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, str) and hasattr(annotation, "__members__"):
        return ", ".join(item.value for item in annotation)  # a StrEnum
    return _WORDS.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def attributes(kind: type) -> dict[str, str]:
    """Return the ``Attributes:`` section of a docstring as {name: text in Markdown}."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    for line in listed.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry["names"].split(", ")
            found |= {name: [entry["text"].strip()] for name in names}
        elif line.startswith("     "):
            for name in names:
                found[name].append(line.strip())
        elif line.strip():
            break
    return {name: _markdown(" ".join(lines)) for name, lines in found.items()}


def _summary(kind: type) -> str:
    """Return the text of a docstring before its first section."""
    text = re.split(r"\n\n?(?:Attributes|Args|Source):\n", inspect.getdoc(kind) or "")[0]
    return _markdown(" ".join(text.split()))


def _markdown(text: str) -> str:
    """Return a docstring's text with reStructuredText's literals as Markdown code, and nothing that Markdown eats."""
    parts = re.split(r"``(.+?)``", text)
    plain = [re.sub(r"([{}<>*_\[\]])", r"\\\1", part) for part in parts[::2]]
    code = [f"`{part}`" for part in parts[1::2]]
    return "".join(part for pair in zip(plain, [*code, ""], strict=True) for part in pair)


def markdown(found: Iterator[Section], directive: str) -> str:
    """Return the sections as MyST: one heading a table, one ``directive`` a field."""
    lines = []
    for section in found:
        lines += [f"## `{section.name}`" if section.name else "## Top level", "", section.text, ""]
        for entry in section.entries:
            default = f", default `{entry.default}`" if directive == "confval" and entry.default is not None else ""
            lines += [f"```{{{directive}}} {entry.name}", "", f"*{entry.kind}*{default}\\", entry.text, "```", ""]
    return "\n".join(lines)


def load(place: str) -> type:
    """Return the class that ``package.module:Name`` names."""
    module, _, name = place.partition(":")
    kind: type = getattr(importlib.import_module(module), name)
    return kind


def generated(page: str) -> str:
    """Return the generated part of ``page``."""
    root, directive = PAGES[page]
    nested = {name: load(place) for name, place in NESTED.items()}
    return markdown(sections(load(root), nested), directive)


def tables(text: str) -> str:
    """Return a page with the columns of each table in place of its comment, as ``<!-- points -->``."""
    from sweep.report import frame_columns, frames

    kinds = "".join(f"| {kind} | `{name}` |\n" for kind, name in frames.DTYPES.items())
    text = text.replace("<!-- types -->\n", f"| type | in pandas |\n|---|---|\n{kinds}")
    for table, columns in frame_columns.TABLES.items():
        lines = "".join(f"| `{column.name}` | {column.kind} | {column.help} |\n" for column in columns)
        text = text.replace(f"<!-- {table} -->\n", f"| column | type | meaning |\n|---|---|---|\n{lines}")
    return text


def findings(text: str) -> str:
    """Return a page with the rules of the findings and the peaks of the GPUs in place of their comments."""
    from sweep.analysis import layers

    rules = [
        f"## {rule.title}\n\n`{rule.kind}`: {rule.meaning}\n\nTry: {rule.advice}\n\nSource: {rule.source}.\n"
        for rule in layers.RULES.values()
    ]
    kinds = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")
    head = f"| GPU | {' | '.join(kinds)} | GB/s | source | checked against |\n|---|{'---|' * len(kinds)}---|---|---|\n"
    rows = "".join(
        f"| {gpu.name} | {' | '.join(f'{rate:g}' if (rate := gpu.of_type(kind)) else '-' for kind in kinds)} | "
        f"{gpu.gb_per_s:g} | {gpu.source} | {gpu.checked} |\n"
        for gpu in layers.GPUS
    )
    return text.replace("<!-- findings -->\n", "\n".join(rules)).replace("<!-- gpus -->\n", head + rows)


def _fill(_: Sphinx, page: str, source: list[str]) -> None:
    if page in PAGES:
        source[0] = source[0].replace(PLACEHOLDER, generated(page))
    elif page == TABLES:
        source[0] = tables(source[0])
    elif page == FINDINGS:
        source[0] = findings(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the object type of record fields and fill the generated pages as they are read."""
    from sphinx.domains.std import ConfigurationValue

    class RecordField(ConfigurationValue):
        """Describe a field of the record; referred to by {recordfield}`peak.ips`."""

        index_template = "%s; record field"

    app.add_object_type("recordfield", "recordfield", objname="record field")
    app.add_directive_to_domain("std", "recordfield", RecordField, override=True)
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
