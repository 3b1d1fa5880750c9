"""Versions of libraries: from metadata, else from the module itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_nvml import FakeNvml, NVMLError

from sweep.system import environment, nvml

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("code", "version"),
    [
        ("print('hello'); __version__ = '1.2'", "1.2"),
        ("def getVersion():\n    return 7", "7"),
        ("pass", "unknown"),
        ("raise ImportError('no CUDA')", None),
        ("import os; os.abort()", None),
    ],
)
def test_a_module_is_asked_for_its_version(
    code: str, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bare_library.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment.module_version.cache_clear()
    assert environment.module_version("bare_library") == version
    assert environment.library_version("bare_library") == version
    environment.module_version.cache_clear()


def test_a_module_that_is_not_there_has_no_version() -> None:
    assert environment.module_version("no_such_module_here") is None


def test_what_a_gpu_was_set_to_is_a_fact_where_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower limit makes the same GPU slower, so that kept records and comparisons name it."""
    before = environment.machine()  # the real one, kept for this process
    for clock, mhz in ((1410, 1410), (NVMLError(3), None)):
        monkeypatch.setattr(nvml, "library", FakeNvml(application=clock, limit_mw=500_400).library)
        environment.gpu.cache_clear()
        facts = environment.collect_facts({}, "GPU-aa11-0")
        assert (facts["application_clock_mhz"], facts["power_limit_w"]) == (mhz, 500)
    environment.gpu.cache_clear()
    assert environment.machine() is before
    now = {**facts, "power_limit_w": 400}
    assert environment.differing(facts, now) == ["power_limit_w"]
