"""``python -m sweep``: ready for an interrupt first, then everything else."""

from __future__ import annotations

import sys
from typing import NoReturn

from sweep.system import file_trust, signals


def main() -> NoReturn:
    """Run the command line; always ends the process with its exit code (see ``cli``)."""
    signals.install()
    file_trust.restrict()
    try:
        from sweep.cli import run

        sys.exit(run.run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(signals.EXIT_CODE)
    except Exception:
        if signals.arrived():  # an import that it broke off says ImportError
            sys.exit(signals.EXIT_CODE)
        raise


if __name__ == "__main__":
    main()
