"""What is left to do: filters, retries, what an index may and may not be believed."""

import json
import os

import factories
import numpy as np
import pytest

from sweep import spec
from sweep.config import schema, variants
from sweep.errors import ConfigError, RecordError
from sweep.runner import filters, oom_pruning, plan, resume
from sweep.spec.settings import RETRIED, Settings
from sweep.storage import PointSamples, samples_file
from sweep.storage.record import Record
from sweep.storage.store import Store


def variant(batch=1, streams=1, precision="fp32", **session):
    return factories.variant(
        precision=precision, backend="simulated", batch=batch, streams=streams, kind="closed", **session
    )


SIX = [variant(batch, streams) for batch in (1, 8, 32) for streams in (1, 2)]


@pytest.mark.parametrize(
    ("only", "skip", "left"),
    [
        (["batch:8"], [], ["b8 s1", "b8 s2"]),
        (["b8", "streams:2"], [], ["b8 s2"]),
        (["batch:8|32"], ["s2"], ["b8 s1", "b32 s1"]),
        ([], ["batch:8", "batch:32", "s2"], ["b1 s1"]),
        (["load:closed", "load.depth:2", "mps:null"], ["b1|b8"], ["b32 s1", "b32 s2"]),
        ([], [], ["b1 s1", "b1 s2", "b8 s1", "b8 s2", "b32 s1", "b32 s2"]),
    ],
)
def test_only_and_skip_choose_by_word_and_by_axis(only, skip, left) -> None:
    found = filters.of(plan.make(SIX), only, skip)
    assert [work.variant.label for work in found.works] == [f"tiny_cnn fp32 {words}" for words in left]


@pytest.mark.parametrize(
    ("only", "skip", "line"),
    [
        (["model:mlp"], [], "only=model:mlp: no variant has it; model is tiny_cnn"),
        (["bach:8"], [], "only=bach:8: no such axis; did you mean batch?"),
        ([], ["int8"], "skip=int8: no variant has that word in its label"),
        (["b1"], ["b1"], r"only=\[b1\] skip=\[b1\]: leaves none of 6 variants"),
    ],
)
def test_a_filter_that_matches_nothing_is_one_line(only, skip, line) -> None:
    with pytest.raises(ConfigError, match=line):
        filters.of(plan.make(SIX), only, skip)


@pytest.fixture
def settings(tmp_path):
    return Settings(name="s", results=tmp_path)


def written(settings, work, status="ok", kind=None, facts=None):
    error = None if status == "ok" else {"stage": "x", "kind": kind or "X", "message": "m", "stderr_tail": []}
    Store(settings.root).write(
        Record(
            key=work.key,
            sweep="s",
            status=status,
            started_at="2026-01-01T00:00:00+00:00",
            variant=spec.flat(work.variant),
            facts=facts or {},
            error=error,
            wall_s=1.0,
        )
    )
    if status == "ok":
        path = Store(settings.root).samples_path(work.key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"PK\x05\x06" + bytes(18))  # the end of an empty zip


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        ("none", set()),
        ("failed", {"failed", "oom", "timeout", "crashed"}),
        ("all", {"failed", "oom", "timeout", "crashed", "invalid"}),
        (["oom", "invalid"], {"oom", "invalid"}),
    ],
)
def test_retry_says_which_statuses_are_measured_again(tmp_path, retry, again) -> None:
    asked = schema.Config(name="s", results=str(tmp_path), retry=retry)
    settings = variants.settings(asked, [])
    statuses = ["ok", "failed", "oom", "timeout", "crashed", "invalid"]
    made = plan.make(SIX)
    for work, status in zip(made.works, statuses, strict=True):
        written(settings, work, status)
        if status == "invalid":
            Store(settings.root).samples_path(work.key).write_bytes(b"PK\x05\x06" + bytes(18))
    todo = {work.key for work in resume.remaining(made, settings).todo}
    assert {status for work, status in zip(made.works, statuses, strict=True) if work.key in todo} == again


@pytest.mark.fault
@pytest.mark.parametrize("place", ["record_path", "samples_path"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_measured(settings, place) -> None:
    made = plan.make(SIX)
    for work in made.works:
        written(settings, work)
    path = getattr(Store(settings.root), place)(made.works[3].key)
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordError, match=rf"{path} is a folder, and this sweep writes a file .*: remove the folder"):
        resume.remaining(made, settings)


@pytest.mark.fault
@pytest.mark.timeout(20)
def test_samples_that_are_a_pipe_are_measured_again(settings) -> None:
    made = plan.make(SIX)
    for work in made.works:
        written(settings, work)
    path = Store(settings.root).samples_path(made.works[3].key)
    path.unlink()
    os.mkfifo(path)
    left = resume.remaining(made, settings)
    assert left.todo == [made.works[3]]
    assert left.notes == [f"{made.works[3].label} is measured again: its samples are gone or damaged"]


def test_a_status_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="retry=late,oom: give none, failed, all, or a list of crashed"):
        variants.settings(schema.Config(retry=["oom", "late"]), [])
    assert Settings(name="s", results=tmp_path).retry == RETRIED


@pytest.mark.parametrize("gpus", [[], ["all", 0]])
def test_gpus_that_name_nothing_are_refused(gpus) -> None:
    with pytest.raises(ConfigError, match="give all, or a list of indices or UUIDs"):
        variants.settings(schema.Config(gpus=gpus), [])


def test_the_index_is_believed_only_for_the_very_file_it_was_made_of(settings) -> None:
    made = plan.make([variant(batch) for batch in range(1, 121)])
    for work in made.works:
        written(settings, work)
    assert resume.remaining(made, settings, keep_index=True).todo == []
    path = settings.root / "index.json"
    assert len(json.loads(path.read_text())["rows"]) == 120

    cut, gone, failed = made.works[:3]
    record = Store(settings.root).record_path(cut.key)
    record.write_bytes(record.read_bytes()[:50])
    Store(settings.root).samples_path(gone.key).unlink()
    written(settings, failed, "crashed")
    again = resume.remaining(made, settings)
    assert again.todo == [cut, gone, failed]
    assert len(again.notes) == 2

    path.write_text(path.read_text()[:1000])
    assert resume.remaining(made, settings).todo == [cut, gone, failed]


def test_what_ran_out_of_memory_rules_out_more_of_the_same_and_nothing_else() -> None:
    known = oom_pruning.Pruning()
    assert known.cause(variant(64), None) is None
    known.ran_out(variant(8, 2, clients=2), "H200")
    for more in (
        variant(9, 2, clients=2),
        variant(8, 3, clients=2),
        variant(8, 2, clients=4),
        variant(64, 2, clients=2),
    ):
        cause = known.cause(more, "H200")
        assert cause
        assert cause.label == "tiny_cnn fp32 b8 s2 c2"
    others = (
        variant(8, 2, clients=2),
        variant(4, 9, clients=9),
        variant(64, 1, clients=2),
        variant(64, 2, clients=2, cuda_graph=True),
        variant(64, 2, "fp16", clients=2),
    )
    assert [known.cause(other, "H200") for other in others] == [None] * len(others)
    assert known.cause(variant(64, 2, clients=2), "A100") is None


def test_a_changed_machine_is_told_once_with_what_changed_and_a_name_to_measure_under(tmp_path, monkeypatch) -> None:
    settings = Settings(name="s", results=tmp_path)
    made = plan.make(SIX)
    monkeypatch.setattr(resume.environment, "collect_facts", lambda _: {"driver": "580", "host": "b"})
    for work, facts in zip(made.works, [{"driver": "570"}] * 4 + [{"driver": "570", "host": "a"}, {}], strict=True):
        written(settings, work, facts=facts)
    (tmp_path / "s-2").mkdir()
    found = resume.remaining(made, settings)
    assert found.todo == []
    (note,) = found.notes
    start = (
        "5 variants are kept from an earlier run, not measured again, although driver was 570 and is 580 (4 of them)"
    )
    assert note.startswith(
        f"{start}; driver was 570 and is 580, host was a and is b ({made.works[4].label}): name=s-3 "
    )
    assert f"compare s s-3 --results {tmp_path}`; force=true measures" in note
    assert note.count("name=s-3") == 1
    written(settings, made.works[4], facts={"driver": "570", "cores": 8, "power_limit_w": 700})
    monkeypatch.setattr(resume.environment, "collect_facts", lambda _: {"driver": "570", "power_limit_w": 500})
    (note,) = resume.remaining(made, settings).notes
    assert note.startswith(
        f"{made.works[4].label} is kept from an earlier run, not measured again, although power_limit_"
    )
    assert "power_limit_w was 700 and is 500: name=s-3" in note


def test_what_stands_as_out_of_memory_rules_out_at_a_later_start(tmp_path) -> None:
    settings = Settings(name="s", results=tmp_path, retry=frozenset())
    made = plan.make([variant(8), variant(64), variant(128)])
    written(settings, made.works[1], "oom")
    written(settings, made.works[2], "oom", oom_pruning.KIND)
    found = resume.remaining(made, settings)
    assert found.todo == [made.works[0], made.works[2]]  # what was pruned is decided anew
    assert found.pruning.cause(made.works[2].variant, None)
    assert found.pruning.cause(made.works[0].variant, None) is None


@pytest.mark.parametrize(
    ("asked", "limit_ms", "probes", "left"),
    [
        (None, 5.0, [], True),  # judged by its ladder
        ("p99<=5", 5.0, [{"kind": "confirm"}], False),
        ("p99<=5", 5.0, [], True),  # killed between the samples of the search and the record
        ("p99<=5", 8.0, [], False),  # the record shows another SLO
    ],
)
def test_a_search_whose_result_no_record_has_is_made_again(tmp_path, asked, limit_ms, probes, left) -> None:
    settings = Settings(name="s", results=tmp_path, slo=spec.Slo("p99", 5.0), search_s=1.0)
    one = plan.make([factories.variant(precision="fp32", backend="simulated", batch=1, kind="curve")])
    work, store = one.works[0], Store(settings.root)
    slo = {
        "percentile": 99.0,
        "limit_ms": limit_ms,
        "capacity_ips": None,
        "confidence": None,
        "next_ips": None,
        "monotonic": True,
        "probes": probes,
    }
    (settings.root / "records").mkdir(parents=True)
    content = {
        "schema": 1,
        "key": work.key,
        "sweep": "s",
        "status": "ok",
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "variant": spec.flat(work.variant),
        "facts": {},
        "slo": slo,
    }
    store.write(Record(**content))
    flags = dict.fromkeys(("slot_free", "warmup"), np.zeros(1, dtype=bool))
    times = dict.fromkeys(("scheduled_ns", "issued_ns", "done_ns"), np.zeros(1, dtype=np.int64))
    kept = PointSamples(
        kind="confirm",
        index=0,
        repeat=0,
        batch=1,
        offered_rps=1.0,
        overloaded=False,
        **{"complete": True, "stream": np.zeros(1, dtype=np.int16), "asked": asked, **flags, **times},
    )
    samples_file.save(store.samples_path(work.key), [kept])
    assert resume.searches(one, settings, []) == ([work] if left else [])
