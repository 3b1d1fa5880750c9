"""Run ``sweep doctor`` under its old name, ``python -m sweep.doctor``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("doctor")
