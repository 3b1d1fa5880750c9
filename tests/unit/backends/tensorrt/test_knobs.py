"""Which builder settings reach the plan: built at two values each, and held to the table of the documentation."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import factories
import passes
import pytest
import require

from sweep.backends.tensorrt import build, library
from sweep.storage.cache import Cache

if TYPE_CHECKING:
    from sweep.spec import Variant

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "tensorrt.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+), (\w+) \| (equal|differ)", re.MULTILINE)
VERSION = "1.7."
WORDS = {"null": None, "true": True, "false": False}


def rows() -> list[tuple[str, str, str, str]]:
    """(setting, first value, second value, equal or differ) of the page."""
    return ROW.findall(PAGE.read_text())


def plan_digest(variant: Variant, cache: Cache) -> str:
    typed = passes.typed_file(variant, cache)
    shape = (2, 3, 32, 32)
    plan, _ = build.build_serialized(
        library.load("tensorrt_rtx"), typed, variant.engine, {"x": (shape, shape, shape)}, tf32=False
    )
    return hashlib.sha256(plan).hexdigest()


def value(setting: str, word: str) -> object:
    if setting == "profiling_verbosity":
        return word
    return WORDS[word] if word in WORDS else int(word) if word.isdecimal() else word


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    require.library_for("tensorrt_rtx")
    installed = library.load("tensorrt_rtx").trt.__version__
    if not installed.startswith(VERSION):
        require.missing("tensorrt_rtx", f"the table is of TensorRT-RTX {VERSION}x, and {installed} is installed")
    return Cache(tmp_path_factory.mktemp("cache"))


def test_the_table_has_every_setting_that_was_tried() -> None:
    assert {row[0] for row in rows()} == {
        "builder_optimization_level", "max_aux_streams", "tiling", "sparsity", "workspace_mib", "profiling_verbosity",
        "weight_streaming", "tactic_sources", "max_tactics", "tiling_l2_limit_kib", "preview_features", "io_format",
    }  # fmt: skip


@pytest.mark.parametrize(("setting", "first", "second", "plans"), rows(), ids=lambda word: word)
def test_the_plans_are_as_the_table_says(cache: Cache, setting: str, first: str, second: str, plans: str) -> None:
    digests = []
    for word in (first, second):
        asked = factories.variant("tiny_cnn", "fp16", "tensorrt_rtx", batch=2, **{setting: value(setting, word)})
        if setting == "sparsity":
            asked = dataclasses.replace(asked, onnx=dataclasses.replace(asked.onnx, prune="2:4"))
        digests.append(plan_digest(asked, cache))
    assert (digests[0] == digests[1]) == (plans == "equal")
