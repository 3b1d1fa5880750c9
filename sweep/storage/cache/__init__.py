"""Keep models, typed ONNX and engines on disk: key + builder -> folder, below a limit.

``store`` looks up or builds an entry, ``pins`` marks entries in use, ``inventory`` lists entries, ``eviction`` removes
them. ``sweep cache`` lists and prunes a cache.
"""

from sweep.storage.cache import location
from sweep.storage.cache.eviction import Pruned
from sweep.storage.cache.inventory import Item
from sweep.storage.cache.pins import Pins
from sweep.storage.cache.store import MANIFEST, Cache, Entry

GIB = 1 << 30
DEFAULT_GIB = 50.0  # docs/decisions/0009-cache-limit.md gives the reason

__all__ = [
    "DEFAULT_GIB",
    "GIB",
    "MANIFEST",
    "Cache",
    "Entry",
    "Item",
    "Pins",
    "Pruned",
    "eviction",
    "inventory",
    "location",
    "pins",
]
