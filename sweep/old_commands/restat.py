"""Run ``sweep recompute`` under its old name, ``python -m sweep.restat``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("restat")
