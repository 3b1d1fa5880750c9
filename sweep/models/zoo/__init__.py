"""Author the networks that ship with sweep; their bytes are pinned by revision."""

from sweep.models.zoo.catalog import ZooEntry, build, entry, names

__all__ = ["ZooEntry", "build", "entry", "names"]
