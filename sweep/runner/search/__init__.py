"""Search the best variant of a grid under a budget: which variant is probed or measured next, and when to end.

Pure: observations in, decisions out. `sweep.cli.search_run` measures for it, `sweep.runner.search.replay` reads records
instead.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
