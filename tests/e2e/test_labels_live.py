"""A user's own model with labels, as typed: scored, gated without measuring, measured again once labels change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from sweep.models.zoo import digits

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

pytestmark = pytest.mark.e2e

LOAD = ("load=closed", "load.warmup_s=0.02", "load.min_s=0.05", "load.min_requests=20", "load.max_s=2")


def labelled(folder: Path, shift: int = 0) -> None:
    held = digits.DATA.held_out()
    np.savez(folder / "held.npz", x=held.inputs["x"], labels=(held.labels + shift) % 10)


def test_a_score_a_gate_and_an_edit(cli: Cli) -> None:
    folder = cli.results.parent
    onnx.save(digits.digits(), folder / "mynet.onnx")
    labelled(folder)
    asked = ("-m", "model.path=mynet.onnx", "model.labels=held.npz", "precision=fp32,int8", "batch=32", *LOAD)
    done = cli.run(*asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "top-1 on 597 samples of held.npz; fp32 97.49%" in done.stdout
    scores = {item.variant["precision"]: item.accuracy["score"] for item in cli.records()}
    assert scores["fp32"] == 582 / 597
    assert 0.9 < scores["int8"] < scores["fp32"]

    gated = cli.run(*asked, "accuracy.max_score_drop=0")
    assert gated.returncode == 1
    assert "0 to measure, 2 measured already" in gated.stdout
    assert "0 were allowed (accuracy.max_score_drop)" in gated.stdout
    assert sorted(item.status for item in cli.records()) == ["invalid", "ok"]

    labelled(folder, shift=1)
    edited = cli.run(*asked, "only=int8")
    assert "1 variants, 1 to measure" in edited.stdout
    (new,) = (item for item in cli.records() if item.accuracy["score"] < 0.1)
    assert new.engine["cached"], "labels are in no engine's key"
    assert new.status == "ok", "judged without the gate; the record of the other labels is left alone"
