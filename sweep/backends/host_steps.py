"""List the host steps of pipelines: ``HOST_STEPS`` is the registry, and a new step is one entry.

A pipeline names its steps, and only those of this list run: a YAML from elsewhere never chooses what is imported. Each
is a small function on arrays in host memory. A step without inputs depends on the run of its loop alone, so that a
backend computes it when it loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    Arrays = Mapping[str, np.ndarray]

_TRAINED_STEPS = 1000  # of Stable Diffusion: noise schedule "scaled linear" from 0.00085 to 0.012
_BETAS = (0.00085, 0.012)
_FREQUENCIES = 160  # sine and cosine of each make the 320 features of a time step
_OVERLAP = 0.5  # intersection over union above which the lower of two boxes is dropped
_CROP = (32, 128)  # height and width of a crop: what a recogniser of lines of text reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Describe one run of a step.

    Attributes:
        run: number of the run in its loop, from 0; 0 outside of a loop.
        count: runs of the loop.
        batch: samples of the request.
        rows: rows to give, where the stage draws them; None for all.
    """

    run: int
    count: int
    batch: int
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStep:
    """Describe one host step.

    Attributes:
        run: arrays of the inputs, by name, and the call -> arrays of the outputs, by name. The shapes of the outputs
            but for the rows follow from those of the inputs.
        inputs: names of the inputs.
        outputs: names of the outputs.
        help: what it does, in a few words.
        draws_rows: gives as many rows as ``Call.rows`` says.
    """

    run: Callable[[Arrays, Call], dict[str, np.ndarray]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    help: str
    draws_rows: bool = False


def _argmax(arrays: Arrays, _call: Call) -> dict[str, np.ndarray]:
    return {"indices": arrays["scores"].argmax(axis=-1)}


def _time_step(call: Call) -> int:
    """Return the time step of a run: evenly spaced, the noisiest first."""
    return (call.count - 1 - call.run) * (_TRAINED_STEPS // call.count) + 1


def _kept_signal(step: int) -> float:
    """Return the share of the variance that is signal at a time step; that of the first where there is none before."""
    import numpy as np

    betas = np.linspace(_BETAS[0] ** 0.5, _BETAS[1] ** 0.5, _TRAINED_STEPS) ** 2
    return float(np.cumprod(1 - betas)[max(min(step, _TRAINED_STEPS - 1), 0)])


def _time_features(_arrays: Arrays, call: Call) -> dict[str, np.ndarray]:
    """Return sine and cosine of the time step, [batch,320], as Stable Diffusion's U-Net takes them."""
    import numpy as np

    frequencies = np.exp(-np.log(10_000.0) * np.arange(_FREQUENCIES) / _FREQUENCIES)
    angles = _time_step(call) * frequencies
    features = np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)
    return {"time_features": np.tile(features, (call.batch, 1))}


def _ddim_step(arrays: Arrays, call: Call) -> dict[str, np.ndarray]:
    """Take the noise that was predicted out of the latents, and add that of the next time step.

    Source:
        Song et al., 2020, arXiv:2010.02502, equation 12 with eta = 0.
    """
    import numpy as np

    step = _time_step(call)
    signal, following = _kept_signal(step), _kept_signal(step - _TRAINED_STEPS // call.count)
    sample, noise = arrays["sample"], arrays["noise"]
    clean = (sample - np.float32((1 - signal) ** 0.5) * noise) * np.float32(signal**-0.5)
    return {"sample": np.float32(following**0.5) * clean + np.float32((1 - following) ** 0.5) * noise}


def _euler_step(arrays: Arrays, call: Call) -> dict[str, np.ndarray]:
    """Follow the predicted noise from one level of noise to the next.

    Source:
        Karras et al., 2022, arXiv:2206.00364, algorithm 2 without churn.
    """
    import numpy as np

    step = _time_step(call)
    levels = [((1 - kept) / kept) ** 0.5 for kept in map(_kept_signal, (step, step - _TRAINED_STEPS // call.count))]
    return {"sample": arrays["sample"] + np.float32(levels[1] - levels[0]) * arrays["noise"]}


def _nms(arrays: Arrays, _call: Call) -> dict[str, np.ndarray]:
    """Keep the best of boxes that overlap: boxes [n,4] of corners y0, x0, y1, x1, scores [n]; the rest become zeros."""
    import numpy as np

    boxes, scores = arrays["boxes"], arrays["scores"].reshape(-1)
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        if all(_shared(boxes[place], boxes[other]) <= _OVERLAP for other in kept):
            kept.append(place)
    out = np.zeros_like(boxes)
    out[: len(kept)] = boxes[kept]
    return {"boxes": out}


def _shared(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two boxes over their union."""
    import numpy as np

    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    union = sum(float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (one, other)) - common
    return common / union if union > 0 else 0.0


def _crop_boxes(arrays: Arrays, call: Call) -> dict[str, np.ndarray]:
    """Cut the places with the highest scores out of the images: [rows,channels,32,128], nearest pixels.

    Images [batch,channels,h,w], scores [batch,1,h',w']; each place is the middle of a box of a crop's size, in turn
    over the images of the batch.
    """
    import numpy as np

    images, scores = arrays["image"], arrays["scores"]
    rows, (height, width) = call.rows or len(images), images.shape[2:]
    ranked = np.argsort(-scores.reshape(len(images), -1), axis=1, kind="stable")
    crops = np.empty((rows, images.shape[1], *_CROP), images.dtype)
    for row in range(rows):
        number = row % len(images)
        place = int(ranked[number, row // len(images) % ranked.shape[1]])
        y, x = divmod(place, scores.shape[-1])
        top = y * height // scores.shape[-2] - _CROP[0] // 2 + np.arange(_CROP[0])
        left = x * width // scores.shape[-1] - _CROP[1] // 2 + np.arange(_CROP[1])
        crops[row] = images[number][:, np.clip(top, 0, height - 1)[:, None], np.clip(left, 0, width - 1)]
    return {"crops": crops}


HOST_STEPS: dict[str, HostStep] = {
    "argmax": HostStep(
        run=_argmax, inputs=("scores",), outputs=("indices",), help="place of the largest score on the last axis"
    ),
    "crop_boxes": HostStep(
        run=_crop_boxes,
        inputs=("image", "scores"),
        outputs=("crops",),
        help="crops of 32 x 128 pixels around the highest scores, as many as are drawn (rows, most_rows)",
        draws_rows=True,
    ),
    "ddim_step": HostStep(
        run=_ddim_step, inputs=("sample", "noise"), outputs=("sample",), help="update of the latents by DDIM"
    ),
    "euler_step": HostStep(
        run=_euler_step, inputs=("sample", "noise"), outputs=("sample",), help="update of the latents by Euler's method"
    ),
    "nms": HostStep(
        run=_nms, inputs=("boxes", "scores"), outputs=("boxes",), help="boxes without those that overlap a better one"
    ),
    "time_features": HostStep(
        run=_time_features, inputs=(), outputs=("time_features",), help="sine and cosine of the time step of the loop"
    ),
}
