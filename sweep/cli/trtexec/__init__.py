"""A record as the command of NVIDIA's own tool, and what that tool says beside it (docs/reference/trtexec.md).

``python -m sweep.cli.trtexec RECORD`` prints the command; ``parity=true`` runs it and keeps the difference.
"""
