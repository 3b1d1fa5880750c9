"""What each host step computes, against a closed form or by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sweep.backends.host_steps import HOST_STEPS, Call


def run(name: str, call: Call | None = None, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    step = HOST_STEPS[name]
    assert set(arrays) == set(step.inputs)
    outputs = step.run(arrays, call or Call(run=0, count=1, batch=1))
    assert set(outputs) == set(step.outputs)
    return outputs


@pytest.mark.parametrize("name", ["ddim_step", "euler_step"])
def test_a_sampler_that_is_told_the_true_noise_arrives_at_the_image(name: str) -> None:
    """Each step then keeps the same noise at a lower level, down to that of the first time step."""
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 1, 4, 8, 8), np.float32)
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    first, last = kept[981], kept[0]
    scales = (first**0.5, last**0.5) if name == "ddim_step" else (1.0, 1.0)
    sample = (scales[0] * clean + scales[0] * ((1 - first) / first) ** 0.5 * noise).astype(np.float32)
    for number in range(50):
        sample = run(name, Call(run=number, count=50, batch=1), sample=sample, noise=noise)["sample"]
    assert sample.dtype == np.float32
    expected = scales[1] * clean + scales[1] * ((1 - last) / last) ** 0.5 * noise
    assert np.allclose(sample, expected, atol=1e-3)


def test_features_of_a_time_step_are_those_of_stable_diffusion() -> None:
    features = run("time_features", Call(run=49, count=50, batch=3))["time_features"]
    assert features.shape == (3, 320)
    assert features[0, 0] == pytest.approx(np.cos(1.0)), "the last of 50 steps is time step 1, its first frequency 1"
    assert features[2, 160] == pytest.approx(np.sin(1.0))
    assert run("time_features", Call(run=0, count=50, batch=1))["time_features"][0, 0] == pytest.approx(np.cos(981))


def test_boxes_that_overlap_a_better_one_are_dropped() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6], [0, 1, 2, 3]], np.float32)
    kept = run("nms", boxes=boxes, scores=np.array([0.5, 0.9, 0.1, 0.4], np.float32))["boxes"]
    assert kept.tolist() == [boxes[1].tolist(), boxes[3].tolist(), boxes[2].tolist(), [0, 0, 0, 0]]


def test_crops_lie_around_the_highest_scores_in_turn_over_the_images() -> None:
    image = np.zeros((2, 1, 64, 256), np.float32)
    scores = np.zeros((2, 1, 8, 32), np.float32)
    scores[0, 0, 4, 16], scores[1, 0, 2, 8] = 1, 1
    image[0, 0, 32, 128], image[1, 0, 16, 64] = 5, 7
    crops = run("crop_boxes", Call(run=0, count=1, batch=2, rows=3), image=image, scores=scores)["crops"]
    assert crops.shape == (3, 1, 32, 128)
    assert (crops[0, 0, 16, 64], crops[1, 0, 16, 64]) == (5, 7)
    assert len(run("crop_boxes", image=image, scores=scores)["crops"]) == 2, "one an image where none are drawn"


def test_the_largest_score_wins() -> None:
    assert run("argmax", scores=np.array([[[1, 3, 2], [9, 0, 0]]], np.float32))["indices"].tolist() == [[1, 0]]
