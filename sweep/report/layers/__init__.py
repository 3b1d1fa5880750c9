"""Show the layer profile of an engine, and why one engine is slower than another, to people and to other tools."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
