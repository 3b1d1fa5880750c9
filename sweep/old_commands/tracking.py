"""Run ``sweep publish`` under its old name, ``python -m sweep.tracking``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("tracking")
