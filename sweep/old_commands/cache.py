"""Run ``sweep cache`` under its old name, ``python -m sweep.cache``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("cache")
