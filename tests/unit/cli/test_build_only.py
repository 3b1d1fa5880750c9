"""The plans that ``build_only`` keeps: a second name of the file in the cache, or a copy, and never harm to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from sweep.backends.tensorrt import PLAN
from sweep.cli import build_only
from sweep.spec.settings import Settings
from sweep.system import atomic_files

if TYPE_CHECKING:
    from collections.abc import Callable


def build(key: str) -> SimpleNamespace:
    result = SimpleNamespace(engine={"key": key})
    return SimpleNamespace(works=[SimpleNamespace(label="fp16 b1")], outcome=SimpleNamespace(result=result))


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@pytest.mark.parametrize("link", [Path.hardlink_to, no_links])
def test_a_plan_is_kept_and_the_cache_is_unharmed_whatever_a_killed_process_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[..., None]
) -> None:
    """A leftover with the process's own number was a second name of the cached plan, and was written over."""
    monkeypatch.setattr(Path, "hardlink_to", link)
    settings = Settings(name="s", results=tmp_path)
    plan = settings.cache / "engines" / "a1b2c3d4e5" / PLAN
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"engine")
    target = settings.root / "plans" / "fp16_b1-a1b2c3d4.plan"
    target.parent.mkdir(parents=True)
    leftover = target.with_suffix(f".{os.getpid()}")
    os.link(plan, leftover)
    assert build_only._keep_plan(build("a1b2c3d4e5"), settings) == target
    assert (plan.read_bytes(), target.read_bytes()) == (b"engine", b"engine")
    assert {path.name for path in target.parent.iterdir()} == {target.name, leftover.name}
    assert not atomic_files.is_of_other_host(leftover.name)
