"""Decode and scale pictures into the arrays that a network takes."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweep.system import regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

    from sweep.models.datasets.user_arrays import Arrays
    from sweep.models.signatures import Signature

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of the files that are taken for pictures."""
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of RGB from 0 to 1
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_IMAGE_RANK, _RGB = 4, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Describe what a picture has to become for a network that takes one.

    Attributes:
        name: of the input.
        dtype: numpy's name of its element type.
        high, wide: pixels.
        channels_first: [3,H,W]; else [H,W,3].
        batched: the input has a batch axis.
    """

    name: str
    dtype: str
    high: int
    wide: int
    channels_first: bool
    batched: bool


def frame(signature: Signature) -> Frame:
    """Derive from the signature what a picture has to become.

    Raises:
        ValueError: the network takes no pictures.
    """
    specs = [spec for spec in signature.inputs if spec.is_float and len(spec.shape) == _IMAGE_RANK]
    layout = {1: "NCHW", 3: "NHWC"}
    layouts = [layout[axis] for spec in specs for axis in layout if spec.shape[axis] == _RGB]
    if len(signature.inputs) != 1 or not layouts:
        raise ValueError("images are for a network with one float input of 3 channels, [batch,3,H,W] or [batch,H,W,3]")
    (spec,) = specs
    high, wide = (int(size) for size in (spec.shape[2:] if layouts[0] == "NCHW" else spec.shape[1:3]))
    return Frame(
        name=spec.name,
        dtype=spec.dtype,
        high=high,
        wide=wide,
        channels_first=layouts[0] == "NCHW",
        batched=spec.batch_axis is not None,
    )


def picture(file: Path, target: Frame) -> np.ndarray:
    """Decode as RGB, crop the middle to the input's size, scale to 0..1, normalise by ImageNet's mean and deviation.

    Returns:
        float32 [3,H,W] or [H,W,3].

    Raises:
        ValueError: it is no picture, or a broken one.
    """
    from PIL import ImageOps

    with _open_image(file) as image:
        pixels = np.asarray(ImageOps.fit(image.convert("RGB"), (target.wide, target.high)), np.float32)
    row: np.ndarray = (pixels / 255 - _IMAGENET_MEAN) / _IMAGENET_DEVIATION
    return row.transpose(2, 0, 1) if target.channels_first else row


def look_at(file: Path) -> None:
    """Read a picture's header.

    Raises:
        ValueError: it is none.
    """
    with _open_image(file):
        pass


@contextlib.contextmanager
def _open_image(file: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: the pixels decide
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with regular_files.open_input(file, follow=True) as opened, Image.open(opened) as image:
                yield image
    except UnidentifiedImageError as error:  # it names the open file, not its path
        raise ValueError(f"cannot identify image file {str(file)!r}") from error
    except (
        OSError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:  # Pillow calls a broken PNG a syntax error
        text = " ".join(str(error).split())
        raise ValueError(text if str(file) in text else f"{file}: {text}") from error


def pictures(files: list[Path], target: Frame) -> Arrays:
    """Build the network's input from these pictures, in their order; see ``picture``."""
    rows = np.stack([picture(file, target) for file in files])
    whole = rows if target.batched else rows[:, None]
    return {target.name: np.ascontiguousarray(whole, dtype=target.dtype)}
