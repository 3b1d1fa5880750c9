"""Word what is wrong with a YAML file that cannot be parsed: file, line, and what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from sweep.errors import shorten
from sweep.system import regular_files

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = (yaml.YAMLError, UnicodeDecodeError, RecursionError)
_ADVICE = {  # part of what PyYAML says: what it means
    "character '\\t'": "a tab cannot stand here; indent with spaces",
    "mapping values are not allowed": "a second `:` on a line, or a line indented further than the one above it; "
    "put text with a `:` into quotes",
    "expected <block end>": "the line is indented unlike those it belongs to",
    "could not find expected ':'": "this is neither KEY: VALUE nor - VALUE",
    "while scanning a quoted scalar": "the quote that begins here never ends",
    "while parsing a flow": "the bracket that opens here is not closed, or a comma is missing",
    "could not determine a constructor": "a tag (!...) cannot stand here; give a plain value",
    "expected a single document": "a second document begins (---); one file is one sweep",
    "found undefined alias": "no anchor (&NAME) has the name of this alias (*NAME)",
    "found duplicate anchor": "two anchors have one name",
    "found character '%'": "a text that begins with % needs quotes",
    "found character '@'": "a text that begins with @ needs quotes",
    "found character '`'": "a text that begins with ` needs quotes",
    "found unhashable key": "a list or a table is no key",
}


def describe(path: Path, error: Exception) -> str:
    """Return one line on a file that cannot be parsed.

    Args:
        path: the file.
        error: one of ``ERRORS``, as the parser raised it.
    """
    if isinstance(error, RecursionError):
        return f"{path}: nested too deep, or an alias holds itself"
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"{path}:{line}: is no UTF-8 text; save the file as UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        line = regular_files.read_text(path, follow=True)[: error.position].count("\n") + 1
        return f"{path}:{line}: a control character cannot stand in a YAML file; delete it"
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{path}: {shorten(' '.join(str(error).split()))}"
    text = " ".join(filter(None, (error.context, error.problem)))
    begins = (error.context or "").startswith(("while scanning a quoted", "while parsing a flow"))
    mark = (error.context_mark if begins else error.problem_mark) or error.context_mark
    place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    advice = next((advice for part, advice in _ADVICE.items() if part in text), None)
    return f"{place}: {advice or shorten(' '.join(text.split()))}"
