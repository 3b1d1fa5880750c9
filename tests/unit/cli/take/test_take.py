"""Choosing what is taken, the card, and a folder that is there whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import factories
import measured_runs
import pytest
from records import point

from sweep import spec
from sweep.cli.take import bundle, card, engine_entry, selection
from sweep.errors import ConfigError
from sweep.storage import Record, Store

SLO = {
    "percentile": 99.0,
    "limit_ms": 10.0,
    "capacity_ips": 900.0,
    "confidence": 0.995,
    "next_ips": 950.0,
    "monotonic": True,
    "confirmed": True,
    "estimate_ips": 920.0,
    "estimate_interval": [905.0, 948.0],
}


def sweep_of(root: Path, *records: Record) -> Store:
    store = Store(root)
    for record in records:
        store.write(record)
    return store


def record(batch: int, ips: float = 1000.0, **changes: Any) -> Record:
    axes = changes.pop("axes", {})
    made = measured_runs.record(batch, (ips, ips * 1.01), axes=axes)
    return dataclasses.replace(made, engine={"key": f"engine{batch}"}, **changes)


def chosen(results: Path, *wanted: str, places: tuple[str, ...] = ("s",)) -> list[selection.Choice]:
    return selection.choose(places, wanted, results)


def test_the_winner_of_each_model_is_taken_and_of_several_sweeps_each_ones(tmp_path: Path) -> None:
    other = record(4, 10.0, axes={"model": "mlp"})
    sweep_of(tmp_path / "s", record(1, 900.0), record(2, 2000.0), other)
    sweep_of(tmp_path / "t", record(8, 5.0))
    assert {choice.record.variant["batch"] for choice in chosen(tmp_path)} == {2, 4}
    both = chosen(tmp_path, places=("s", "t", "s"))
    assert [choice.record.variant["batch"] for choice in both] == [2, 4, 8]
    names = bundle.folder_names(both)
    assert names[2] == "t-tiny_cnn-fp32-b8-s1"
    assert len(set(names)) == 3


def test_the_reason_is_one_sentence_on_the_variant_that_is_taken(tmp_path: Path) -> None:
    noisy = dataclasses.replace(measured_runs.record(4, (2040.0, 1990.0)), engine={"key": "engine4"})
    sweep_of(tmp_path / "s", record(1, 900.0), record(2, 2000.0), noisy)
    sweep_of(tmp_path / "t", record(8, 5.0))
    slo = {**SLO, "confirmed": False, "estimate_ips": None, "estimate_interval": None}
    sweep_of(tmp_path / "u", record(1, slo=slo), record(2, slo=slo | {"capacity_ips": 300.0, "next_ips": 310.0}))
    reasons = [choice.reason for choice in chosen(tmp_path, places=("s", "t", "u"))]
    assert reasons == [
        "recommended: the highest peak of 3 variants, 2,015 samples/s, not told apart from 1 other",
        "recommended: the only peak that counts, 5 samples/s",
        (
            "recommended among ties: the highest capacity under p99 <= 10 ms of 2 variants, 900 samples/s, "
            "not told apart from 1 other"
        ),
    ]


def test_a_variant_is_named_by_label_words_of_it_key_or_the_beginning_of_one(tmp_path: Path) -> None:
    first, second = record(1), record(2)
    sweep_of(tmp_path / "s", first, second)
    (by_key,), (by_label,) = chosen(tmp_path, second.key), chosen(tmp_path, "tiny_cnn fp32 b2 s1")
    (by_word,), (by_start,) = chosen(tmp_path, "b2"), chosen(tmp_path, second.key[:8])
    assert {choice.record.key for choice in (by_key, by_label, by_word, by_start)} == {second.key}
    assert len(chosen(tmp_path, "b2", "b1", second.key)) == 2
    with pytest.raises(ConfigError, match="2 variants of s have that name: "):
        chosen(tmp_path, "fp32")
    with pytest.raises(ConfigError, match="did you mean tiny_cnn fp32 b2 s1"):
        chosen(tmp_path, "tiny_cnn fp32 b3 s1")


@pytest.mark.parametrize("status", sorted(set(spec.Status) - {spec.Status.OK}))
def test_what_did_not_end_ok_is_refused_with_its_reason(tmp_path: Path, status: spec.Status) -> None:
    error = {"stage": "build", "message": "no kernel"}
    sweep_of(tmp_path / "s", record(1, status=status, error=error))
    with pytest.raises(ConfigError, match=f"is {status} at build: no kernel; it is not taken"):
        chosen(tmp_path, "b1")
    with pytest.raises(ConfigError, match="s recommends no variant"):
        chosen(tmp_path)


def test_a_backend_that_computes_nothing_has_no_engine_to_take(tmp_path: Path) -> None:
    sweep_of(tmp_path / "s", record(1, axes={"backend": "simulated"}))
    with pytest.raises(ConfigError, match="has no engine to take: backend=simulated computes nothing"):
        chosen(tmp_path)


def text_of(tmp_path: Path, made: Record, *, measured: bool = True) -> str:
    store = Store(tmp_path / "s")
    choice = selection.Choice(record=made, store=store, label="b1", reason="recommended: b1", peers=(made,))
    manifest = {
        "engine": {"is_the_measured_one": measured},
        "command": ["batch=1", "slo.p99_ms=10"],
        "check": "not run here (no GPU)",
        "bound_to": {"gpu": "NVIDIA H200 | NVL"},
        "recipe": {"precision": "fp16", "file": "precision/fp16.yaml", "graph_pass": {"name": "simplify"}, "notes": []},
    }
    return card.text(choice, spec.from_record(made.variant), manifest, engine_bytes=3 << 20)


def test_the_card_has_every_figure_with_its_interval_and_how_it_was_served(tmp_path: Path) -> None:
    axes = {"clients": 2, "mps": 50, "streams": 3, "cuda_graph": True, "transfers": False, "batch_wait_ms": 2.0}
    axes |= {"precision": "fp16", "profile": spec.Profile(least=1, best=1, most=8)}
    latency = {"p50": 1.25, "p99": 4.5}
    made = record(
        1,
        axes=axes,
        slo=SLO,
        points=[point(300.0, latency, interval={"p50": [1.2, 1.3], "p99": [4.1, 5.2]})],
        accuracy={"sqnr_db": 61.25, "score": 0.975, "reference_score": 0.98, "scored_on": "held.npz"},
    )
    text = text_of(tmp_path, made)
    for row in (
        "| peak | 1,005 samples/s | 1,000 to 1,010 | ",
        "| capacity | 900 samples/s | - | kept p99 of at most 10 ms with 99.5% confidence: a run at this rate ",
        " confirmed it; 950 samples/s did not keep it. Plan with it |",
        "| capacity, estimate | 920 samples/s | 905 to 948 | ",
        "| p50 latency, light load | 1.25 ms | 1.2 to 1.3 | half of the requests at 300 samples/s took no longer",
        "| p99 latency, light load | 4.5 ms | 4.1 to 5.2 | ",
        "| SQNR | 61.2 dB | - | ",
        "| top-1 | 97.50% | - | share of held.npz that it gets right; fp32: 98.00% |",
        "| engine | 3.00 MiB |",
        "- batches of 1; the engine takes 1 to 8, and was optimized for 1\n- 3 streams, ",
        "- 2 processes that share the device",
        "- CUDA MPS with 50% of the threads for each process\n",
        "- each inference replayed as a CUDA graph;",
        "- **without** the copies of inputs and outputs",
        "- a server that gathers requests into batches for at most 2 ms\n",
        "| gpu | NVIDIA H200 \\| NVL |",
        "TensorRT-RTX loads an engine of its own version only.",
        "    sweep batch=1 slo.p99_ms=10\n",
        "- graph pass: simplify\n",
    ):
        assert row in text
    assert "was built again" not in text
    assert "was built again, and is not the one that was timed" in text_of(tmp_path, made, measured=False)


def test_a_take_that_dies_leaves_nothing_under_the_name_and_the_next_one_clears_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = os.fork()
    if process == 0:
        with bundle.assembled(out) as scratch:
            (scratch / "half").touch()
            os._exit(0)
    os.waitpid(process, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    with pytest.raises(KeyboardInterrupt), bundle.assembled(out) as scratch:
        raise KeyboardInterrupt
    bundle.atomic_files.remove_dead_folders(out.parent, out.name)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    with bundle.assembled(out) as scratch:
        (scratch / "whole").touch()
    assert [path.name for path in out.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_is_not_the_one_that_was_measured_is_not_copied(tmp_path: Path) -> None:
    plugin = spec.Plugin(path=str(tmp_path / "plugin.so"), digest="0" * 64)
    variant = factories.variant(backend="tensorrt", plugins=(plugin,))
    with pytest.raises(ConfigError, match=r"plugin.so is gone; put it back"):
        bundle._copy_plugins(tmp_path / "plugins", variant)
    Path(plugin.path).write_bytes(b"code")
    with pytest.raises(ConfigError, match=r"plugin.so is not the file that was measured"):
        bundle._copy_plugins(tmp_path / "plugins", variant)


@pytest.mark.parametrize(
    "axes",
    [
        {"backend": "tensorrt", "plugins": (spec.Plugin(path="/x/plugin.so", digest="0" * 64),)},
        {
            "onnx": dataclasses.replace(
                factories.variant().onnx, graph=spec.GraphPass(name="nets:fold", digest="0" * 64)
            )
        },
    ],
    ids=["plugin", "function"],
)
def test_code_that_only_a_record_names_is_not_run_to_build(tmp_path: Path, axes: dict[str, Any]) -> None:
    sweep_of(tmp_path / "s", record(1, axes=axes))
    (choice,) = chosen(tmp_path, "b1")
    with pytest.raises(ConfigError, match=r"is made with \S+, which runs only if you name it: .*build_only=true"):
        engine_entry.locate(choice, None, tmp_path, build=True)
    with pytest.raises(ConfigError, match=r"--build builds it again, as does .*build_only=true"):
        engine_entry.locate(choice, None, tmp_path, build=False)


def test_an_engine_that_was_built_afresh_was_never_kept(tmp_path: Path) -> None:
    starts = [{"build": 0, "fresh": True, "plan_digest": None, "build_s": 1.0, "load_s": 1.0}]
    sweep_of(tmp_path / "s", dataclasses.replace(record(1), engine={"key": "gone", "starts": starts}))
    (choice,) = chosen(tmp_path, "b1")
    with pytest.raises(ConfigError, match=r"built afresh \(load.builds\), of which none is kept"):
        engine_entry.locate(choice, None, tmp_path, build=True)
