"""Print a record as the command of NVIDIA's own tool, and compare that tool's figures with it.

See docs/reference/trtexec.md.
"""
