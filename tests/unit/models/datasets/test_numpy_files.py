"""Damaged archives at every door that takes an .npz: one line, and no traceback."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sweep.errors import ConversionError, LabelError, ModelError
from sweep.models import Signature, TensorSpec
from sweep.models.datasets import calibration, labelled_reader, numpy_files, sample_files
from sweep.spec import CalibrationData, LabelledData

NETWORK = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),), outputs=())
METHOD = {"local": 8, "central": 10}  # where the way of packing stands after the two signatures of an entry


def packed_in_an_unknown_way(path: Path) -> None:
    np.savez(path, x=np.zeros((16, 4), np.float32), labels=np.zeros(16, np.int64))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", METHOD["local"]), (b"PK\x01\x02", METHOD["central"])):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] = 97
            at = content.find(signature, at + 1)
    path.write_bytes(content)


def of_a_wrong_checksum(path: Path) -> None:
    np.savez(path, x=np.zeros((16, 4), np.float32), labels=np.zeros(16, np.int64))
    content = bytearray(path.read_bytes())
    content[content.find(b"\x93NUMPY") + 140] ^= 255
    path.write_bytes(content)


def of_damaged_deflate(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("x.npy", "labels.npy"):
            file.writestr(name, bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    start = content.find(b"x.npy") + 5
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)


def of_a_single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((16, 4), np.float32))


@pytest.mark.parametrize(
    "damage", [packed_in_an_unknown_way, of_a_wrong_checksum, of_damaged_deflate, of_a_single_array]
)
def test_an_archive_that_is_damaged_is_one_line_at_every_door(damage, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    damage(path)
    labels = LabelledData(kind="npz", path=str(path), digest="d", output="y")
    doors = {
        ConversionError: lambda: next(
            calibration.batches(CalibrationData(kind="npz", path=str(path), digest="d"), NETWORK, 2)
        ),
        LabelError: lambda: next(labelled_reader.chunks(labels, NETWORK)),
    }
    if damage is not of_a_single_array:  # which a network of one input takes as its samples
        doors[ModelError] = lambda: sample_files.arrays(sample_files.of_path(str(path), "d"))
    for error, read in doors.items():
        with pytest.raises(error, match=r"own\.npz.* cannot be read: ") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_an_npy_is_an_array_without_a_name(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.arange(3))
    assert numpy_files.read_arrays(tmp_path / "own.npy")[""].tolist() == [0, 1, 2]
