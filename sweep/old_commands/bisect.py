"""Run ``sweep bisect`` under its old name, ``python -m sweep.bisect``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("bisect")
