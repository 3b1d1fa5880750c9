"""Run ``sweep trtexec`` under its old name, ``python -m sweep.trtexec``."""

from sweep import old_commands

if __name__ == "__main__":
    old_commands.run("trtexec")
