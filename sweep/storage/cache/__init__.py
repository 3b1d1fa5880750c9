"""Keep models, typed ONNX and engines on disk: key + builder -> folder, below a limit.

``store`` looks up or builds an entry, ``pins`` tells which are in use, ``inventory`` lists them, ``eviction`` removes
them. ``sweep cache`` shows and prunes.
"""

from sweep.storage.cache.pins import Pins
from sweep.storage.cache.store import MANIFEST, Cache, Entry

GIB = 1 << 30
DEFAULT_GIB = 50.0  # docs/decisions/0009-cache-limit.md says why

__all__ = ["DEFAULT_GIB", "GIB", "MANIFEST", "Cache", "Entry", "Pins"]
