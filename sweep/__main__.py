"""Run the command line: ``python -m sweep`` and the console script ``sweep``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from sweep.system import file_trust, signals


def main() -> NoReturn:
    """Run the command line; always ends the process with its exit code (see ``sweep.cli.commands``)."""
    if "_ARGCOMPLETE" in os.environ:
        from sweep.cli import completion

        completion.answer()
    signals.install()
    file_trust.restrict()
    try:
        from sweep.cli import commands

        sys.exit(commands.main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(signals.EXIT_CODE)
    except Exception:
        if signals.arrived():  # an import that it broke off says ImportError
            sys.exit(signals.EXIT_CODE)
        raise


if __name__ == "__main__":
    main()
