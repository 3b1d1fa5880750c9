"""Write the outcome of one or several sweeps as one self-contained page, which opens without a network."""

from __future__ import annotations

from sweep.report.html.page import Commands, context, render, write

__all__ = ["Commands", "context", "render", "write"]
