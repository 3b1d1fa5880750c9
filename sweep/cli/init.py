"""Make a folder for sweeps of your own: a file to begin with, and a schema by which editors complete and check it.

Editors with a YAML language server (VS Code, Neovim, IntelliJ) read the schema from the first line of the file. Run it
with `sweep run FOLDER/sweep.yaml`. Existing files are never replaced; --schema writes the schema anew, as after an
update of this program.

Exit codes: 0 made; 1 a file cannot be written; 2 the command is wrong, or a file is there already.

Example:
  sweep init my
  sweep init my --schema
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError, printable_line

if TYPE_CHECKING:
    import argparse

_FILE, _SCHEMA = "sweep.yaml", "sweep.schema.json"
_TEXT = """\
# yaml-language-server: $schema=sweep.schema.json
# Run it: sweep run {path}          Look first: sweep run {path} plan=true
model: tiny_cnn # or {{path: net.onnx}}

sweep: # every combination of these
  precision: [fp16, int8]
  batch: [1, 8, 32]
  streams: [1, 2]

where: batch * streams <= 32
exclude:
  - {{precision: int8, batch: 1}}

repeats: 3 # starts of each variant: differences of a few per cent take several
# slo: {{p99_ms: 10}} # search the samples/s that keep this limit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folder", type=arguments.folder, nargs="?", default=Path(), metavar="FOLDER", help="folder to make [.]"
    )
    parser.add_argument("--schema", action="store_true", help="write the schema alone, also over an older one")


def run(options: argparse.Namespace) -> int:
    """Write the files; return the exit code."""
    from sweep.config import json_schema
    from sweep.system import write_atomic

    sweep, schema = options.folder / _FILE, options.folder / _SCHEMA
    for path in () if options.schema else (sweep, schema):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path}: is there already, and is not replaced; name another folder, or give --schema")
    options.folder.mkdir(parents=True, exist_ok=True)
    files = {schema: json.dumps(json_schema.schema(), indent=1) + "\n"}
    if not options.schema:
        files[sweep] = _TEXT.format(path=sweep)
    for path, text in files.items():
        write_atomic(path, text.encode())
        sys.stdout.write(printable_line(str(path)) + "\n")
    return 0
