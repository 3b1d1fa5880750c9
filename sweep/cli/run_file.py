"""Run the sweep of a YAML file: fixed values, what is swept as lists, and what to leave out.

  model: resnet50
  sweep: {precision: [fp16, int8], batch: [1, 8, 32], streams: [1, 4]}
  where: batch * streams <= 64
  exclude: [{precision: int8, batch: 1}]

`include` lists combinations one by one, `per_model` gives a model values of its own. Words of the command line win over
the file. `sweep init` writes a file to begin with.

Exit codes: 0 every variant ok or unsupported; 1 some variant ended otherwise; 2 the file or a word is refused.

Example:
  sweep run my.yaml plan=true
  sweep run my.yaml batch=1,8
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweep.cli import arguments, completion

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    file = parser.add_argument("file", type=arguments.folder, metavar="FILE", help="YAML file of the sweep")
    words = parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="settings that win over those of the file"
    )
    file.completer = lambda prefix, **_: completion.files(prefix, "yaml", "yml")  # type: ignore[attr-defined]  # argcomplete's hook
    words.completer = lambda prefix, **_: completion.settings(prefix)  # type: ignore[attr-defined]  # as above


def run(options: argparse.Namespace) -> int:
    """Run the sweep; return the exit code."""
    from sweep.cli import run as sweep_run
    from sweep.config import sweep_file

    words = ("run", str(options.file), *options.words)
    return sweep_run.run_request(lambda: sweep_file.read(options.file, options.words), words)
