"""What a test needs and this machine may lack: a reason to skip, or to fail where it must not be missing."""

import contextlib
import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from sweep.backends import registry
from sweep.backends.tensorrt import library
from sweep.errors import BuildError

NO_INT8_CONVOLUTION = "CHECK(dtype == myelinType"  # TensorRT-RTX 1.5 and 1.6 of an int8 convolution


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


@contextlib.contextmanager
def int8_convolutions(name: str, dtype: str) -> Iterator[None]:
    """Skip where TensorRT-RTX says in its own words that it has no int8 convolution; any other refusal fails."""
    try:
        yield
    except BuildError as error:
        if name == "tensorrt_rtx" and dtype.startswith("int8") and NO_INT8_CONVOLUTION in str(error):
            pytest.skip(f"this version builds no int8 convolution: {error}")
        raise
