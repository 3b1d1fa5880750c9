"""Parse the command line of each command, call the packages below and print."""

__all__ = ["commands", "completion"]
