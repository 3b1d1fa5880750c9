"""A sweep whose simulated machine slows down half-way, and one whose machine does not: real workers, virtual time."""

import json

import pytest
import sentinel_sweeps
from forked_command import call_forked
from sentinel_sweeps import Screen

from sweep.cli import commands
from sweep.report.ranking import answer
from sweep.runner import plan
from sweep.spec import EngineAxes, LoadAxes, ModelRef, OnnxAxes, Precision, Script, SessionAxes, Variant
from sweep.spec.settings import Settings
from sweep.storage.store import Store

VARIANTS = 12


@pytest.fixture
def machine(tmp_path):
    made = tmp_path / "machine"
    made.write_text("1.0")
    return made


def variants(machine, count=VARIANTS, distribution="exponential", **changes):
    """They share an engine and differ in their streams."""
    onnx = OnnxAxes(model=ModelRef(name="tiny_cnn", revision=1), precision=Precision(name="fp32", dtype="fp32"))
    script = Script(service_us=100.0, sample_us=0.0, distribution=distribution, machine=str(machine))
    load = LoadAxes(kind="closed", min_s=0.1, warmup_s=0.05, **changes)
    return [
        Variant(
            backend="simulated",
            onnx=onnx,
            engine=EngineAxes(batch=1),
            session=SessionAxes(streams=number + 1, script=script),
            load=load,
        )
        for number in range(count)
    ]


def swept(tmp_path, asked, screen, every=2, begin=0, **changes):
    """Sweep in a process whose workers are forks; the screen is left with what it noted there."""
    settings = Settings(name="s", results=tmp_path / "results", sentinel_every=every, **changes)
    options = {"sentinel_every": every, **changes}
    records, told, notes = call_forked(sentinel_sweeps.measure, settings.results, asked, begin, screen, options)
    screen.notes.extend(notes)
    return records, told, settings


def test_a_slowdown_in_mid_sweep_is_seen_marked_and_kept_out_of_the_ranking(tmp_path, machine, capsys) -> None:
    records, told, settings = swept(tmp_path, variants(machine), Screen(machine, after=8, factor=1.5))
    said = [record.drift["verdict"] for record in records]
    assert said == ["steady"] * 6 + ["drifted"] * 6  # the seventh and eighth share their stretch's end
    assert "off the sweep's median" in records[-1].drift["reason"]
    assert records[-1].drift["before"] < 0.8 * records[0].drift["before"]
    found = answer(records, None)
    assert found.best is records[5]
    assert all(record.variant["label"] in found.text for record in records[6:])
    assert [record.key for record in told] == [record.key for record in records]
    assert commands.main(["recompute", str(settings.root)]) == 0
    assert "12 same" in capsys.readouterr().out


def test_a_machine_that_stays_the_same_marks_nothing(tmp_path, machine) -> None:
    records, _, settings = swept(tmp_path, variants(machine, 5, repeats=2), Screen(machine), every=3)
    assert [record.drift["verdict"] for record in records] == ["steady"] * 5
    assert len(Store(settings.root).sentinel_paths()) == plan.sentinel_runs(10, 3) == 5
    stretches = [number for record in records for number in record.drift["stretches"]]
    assert sorted(stretches) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_the_sentinel_is_the_first_variant_under_a_short_closed_loop(machine) -> None:
    made = plan.make(variants(machine, 3, depth=5, seed=4))
    assert made.sentinel.engine_key == made.works[0].engine_key
    load = made.sentinel.variant.load
    assert (load.kind, load.depth, load.seed, load.repeats) == ("closed", 5, 4, 1)
    assert load.warmup_s + load.max_s < 3


@pytest.mark.parametrize(("count", "every"), [(1, 2), (3, 0)])
def test_a_single_variant_and_a_sweep_without_one_have_no_sentinel(tmp_path, machine, count, every) -> None:
    records, told, settings = swept(tmp_path, variants(machine, count), Screen(machine), every=every)
    assert [record.drift for record in records] == [None] * count
    assert Store(settings.root).sentinel_paths() == []
    assert [record.key for record in told] == [record.key for record in records]


def test_a_sentinel_that_fails_is_said_and_stops_nothing(tmp_path, machine) -> None:
    asked = variants(machine, 4)
    machine.write_text("1.0")
    screen = Screen(machine, after=2, factor="broken")
    made = plan.make(asked)
    records, told, _ = swept(tmp_path, asked, screen)
    assert [record.status for record in records] == ["ok", "ok", "failed", "failed"]
    assert len(screen.notes) == 1
    assert "the sentinel ended as failed" in screen.notes[0]
    assert "drift is not watched" in screen.notes[0]
    assert records[0].drift["verdict"] == "unknown"
    assert {record.key for record in told} == {work.key for work in made.works}


def test_a_later_start_goes_on_counting_and_compares_with_the_first(tmp_path, machine) -> None:
    asked = variants(machine, 8)
    first, _, settings = swept(tmp_path, asked[:6], Screen(machine))
    machine.write_text("1.5")
    later, _, _ = swept(tmp_path, asked, Screen(machine), begin=6)
    assert [record.drift["verdict"] for record in first] == ["steady"] * 6
    assert [record.drift["verdict"] for record in later] == ["steady"] * 6 + ["drifted"] * 2
    assert [json.loads(path.stem[:4].lstrip("0") or "0") for path in Store(settings.root).sentinel_paths()] == list(
        range(6)
    )


def test_what_is_forced_anew_is_not_held_against_what_it_replaces(tmp_path, machine) -> None:
    asked = variants(machine, 3)
    first, _, _ = swept(tmp_path, asked, Screen(machine))
    machine.write_text("1.5")
    second, _, settings = swept(tmp_path, asked, Screen(machine), force=True)
    third, _, _ = swept(tmp_path, asked, Screen(machine))
    assert [record.drift["verdict"] for record in (*first, *second, *third)] == ["steady"] * 9
    keys = [record.drift["sentinel_key"] for record in (first[0], second[0], third[0])]
    assert keys == [keys[0], f"{keys[0]}-1", f"{keys[0]}-1"]
    assert len(Store(settings.root).sentinel_paths()) == 9
