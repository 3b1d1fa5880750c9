"""Models, typed ONNX and engines on disk: key + builder -> folder, kept below a limit.

``store`` finds or builds an entry, ``claims`` says which are in use, ``listing`` what there is, ``prune`` what goes.
``python -m sweep.storage.cache`` shows and prunes.
"""

from sweep.storage.cache.pins import Claim
from sweep.storage.cache.store import MANIFEST, Cache, Entry

GIB = 1 << 30
DEFAULT_GIB = 50.0  # docs/decisions/0009-cache-limit.md says why

__all__ = ["DEFAULT_GIB", "GIB", "MANIFEST", "Cache", "Claim", "Entry"]
