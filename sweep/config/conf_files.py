"""Find the YAML files of conf/; needs no Hydra."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Return conf/ beside the package in a checkout, or its copy inside an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").exists() else package / "_conf"


def choices(group: str) -> list[str]:
    """Return the choices of a config group, e.g. ``fp16`` and ``int8`` of ``precision``, in alphabetical order."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
