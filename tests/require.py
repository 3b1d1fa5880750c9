"""What a test needs and this machine may lack: a reason to skip, or to fail where it must not be missing."""

import os
from typing import NoReturn

import pytest

from sweep.backends import registry
from sweep.backends.tensorrt import library


def missing(what: str, reason: str) -> NoReturn:
    """Skip with the reason; fail where ``SWEEP_REQUIRE`` (a comma list) names ``what``."""
    if what in os.environ.get("SWEEP_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required (SWEEP_REQUIRE) but {reason}")
    pytest.skip(reason)


def library_for(name: str) -> None:
    """Go on only if the library of backend ``name`` is installed, and can build here."""
    if name in library.NAMES and not library.installed(name):
        missing(name, f"{name} is not installed: {library.INSTALL[name]}")
    if name == "tensorrt":
        gpu_for(name)


def gpu_for(name: str) -> None:
    """Go on only if backend ``name`` can run here."""
    if name not in library.NAMES:
        return
    if not library.installed(name):
        missing(name, f"{name} is not installed: {library.INSTALL[name]}")
    reason = registry.get(name).missing()  # type: ignore[attr-defined]
    if reason is not None:
        missing("gpu", reason)
