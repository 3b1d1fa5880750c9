"""``python -m sweep``: ready for an interrupt first, then everything else."""

from __future__ import annotations

import sys
from typing import NoReturn

from sweep import interrupts, private


def main() -> NoReturn:
    """Run the command line; always ends the process with its exit code (see ``cli``)."""
    interrupts.install()
    private.restrict()
    try:
        from sweep import cli

        sys.exit(cli.run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(interrupts.EXIT_CODE)
    except Exception:
        if interrupts.arrived():  # an import that it broke off says ImportError
            sys.exit(interrupts.EXIT_CODE)
        raise


if __name__ == "__main__":
    main()
