"""A file appears whole, in the place of a file alone."""

import os
import stat

import pytest

from sweep.cli import arguments
from sweep.system import write_atomic


def test_a_device_or_pipe_is_never_replaced(tmp_path) -> None:
    """As root, an output named /dev/null would else leave a regular file in its place, for every program."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="device, pipe or socket"):
        write_atomic(pipe, b"text")
    with pytest.raises(OSError, match="device, pipe or socket"):
        arguments.write_output(pipe, b"text")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert [item.name for item in tmp_path.iterdir()] == ["pipe"]
