"""What the first bytes of a file tell of a plan, and every file that is none, each in one line."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import onnx
import pytest
from authored_graphs import NETWORKS

from sweep.backends.tensorrt import plan_file
from sweep.errors import ModelError, SessionError

if TYPE_CHECKING:
    from pathlib import Path


def plan(tag: bytes = b"ftrt", version: tuple[int, int, int, int] = (10, 13, 0, 35), more: bytes = bytes(36)) -> bytes:
    size = 28 + len(more) if tag == b"vtrt" else 0
    return tag + bytes(12) + size.to_bytes(8, "little") + bytes(version) + more


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        plan_file.read(path)
    said = str(caught.value)
    assert said.startswith(f"model.engine={path}")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("content", "library", "version"),
    [
        (plan(), "tensorrt", "10.13.0.35"),
        (plan(b"vtrt", (1, 7, 1, 116)), "tensorrt_rtx", "1.7.1.116"),
        (plan(version=(0, 0, 0, 0)), "tensorrt", None),
    ],
)
def test_the_header_names_the_library_and_its_version(
    content: bytes, library: str, version: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(content)
    read = plan_file.read(path)
    assert (read.library, read.version, read.path) == (library, version, str(path))
    assert read.digest == hashlib.sha256(content).hexdigest()
    assert plan_file.content(path, read.digest) == content
    assert read.built_by == f"{library} {version or 'of an unknown version'}"


def test_the_metadata_that_ultralytics_puts_in_front_is_left_out(tmp_path: Path) -> None:
    metadata = b'{"task": "detect", "imgsz": [640, 640]}'
    path = tmp_path / "yolo.engine"
    path.write_bytes(len(metadata).to_bytes(4, "little") + metadata + plan())
    read = plan_file.read(path)
    assert (read.library, read.version) == ("tensorrt", "10.13.0.35")
    assert plan_file.content(path, read.digest) == plan()
    path.write_bytes(len(metadata).to_bytes(4, "little") + metadata)
    assert "is no plan" in refused(path)


def test_a_file_that_is_no_plan_is_refused_with_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    for content, words in (
        (b"", "is empty (0 bytes)"),
        (b"rubbish" * 9, "starts with b'rubb', and theirs with ftrt or vtrt"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        (b"ft", "is no plan"),
        (plan()[:20], "is cut off after 20 bytes"),
        (plan(b"vtrt")[:-1], "its header tells of 64 bytes and 63 are there"),
        (NETWORKS["cnn"]().SerializeToString(), f"is an ONNX file, which is no plan yet; model.path={path}"),
    ):
        path.write_bytes(content)
        assert words in refused(path)
    onnx.save(NETWORKS["cnn"](), tmp_path / "net.onnx")
    assert "is an ONNX file" in refused(tmp_path / "net.onnx")


def test_what_is_no_file_is_refused_unread(tmp_path: Path) -> None:
    assert "is a folder; give the plan in it" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "absent.plan")
    os.mkfifo(tmp_path / "pipe.plan")
    assert "is a pipe, socket or device" in refused(tmp_path / "pipe.plan")
    huge = tmp_path / "huge.plan"
    huge.write_bytes(plan())
    os.truncate(huge, 1 << 42)
    assert "has 4,096.0 GiB, and a plan is loaded whole into the" in refused(huge)
    for loop in ("a", "b"):
        (tmp_path / loop).symlink_to(tmp_path / ("b" if loop == "a" else "a"))
    assert "symbolic links" in refused(tmp_path / "a")


def test_a_plan_that_changed_or_went_away_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.plan"
    path.write_bytes(plan())
    digest = plan_file.read(path).digest
    path.write_bytes(plan(more=b"other"))
    with pytest.raises(SessionError, match="has changed since it was planned"):
        plan_file.content(path, digest)
    path.unlink()
    with pytest.raises(SessionError, match="No such file"):
        plan_file.content(path, digest)
