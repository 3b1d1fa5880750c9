"""Messages between the parent and its workers: what arrives is what was sent, and a malformed line is one error."""

import dataclasses
import math
import re

import numpy as np
import passes
import pytest

from sweep.errors import MessageError
from sweep.loadgen.capacity_search import SearchRequest
from sweep.runner import messages
from sweep.runner.messages import Engine, Exchange, Failure, Note, Request, Result, Stage, Values
from sweep.spec import (
    CalibrationData,
    EngineAxes,
    InputFix,
    LabelledData,
    LoadAxes,
    ModelRef,
    OnnxAxes,
    Precision,
    Profile,
    Script,
    SessionAxes,
    Variant,
)
from sweep.spec.gates import Gates
from sweep.spec.slo import Slo

FULL = Variant(
    backend="simulated",
    onnx=OnnxAxes(
        model=ModelRef(name="m", path="/nets/m\udcff.onnx", inputs=(InputFix(name="x", shape=("batch", 3), low=0.5),)),
        precision=Precision(name="int8", dtype="int8", quantize_ops=("Conv",), calibration_percentile=99.9),
        calibration=CalibrationData(kind="npz", path="/c.npz", digest="d"),
    ),
    engine=EngineAxes(batch=4, profile=Profile(least=1, best=4, most=8)),
    session=SessionAxes(streams=2, script=Script(raise_at="load")),
    load=LoadAxes(
        fractions=(0.5, 1.1), rates_ips=(10.0,), labels=LabelledData(kind="npz", output="y", path="/l.npz", digest="e")
    ),
)


def test_a_request_arrives_as_it_was_sent(tmp_path) -> None:
    sent = passes.request(
        FULL,
        tmp_path,
        repeat=1,
        rates_ips=[1.5, 2.5],
        gates=Gates(min_score=0.9),
        search=SearchRequest(slo=Slo("p99", 5.0), search_s=2.0),
        earlier_samples=tmp_path / "known.npz",
        client=1,
        limits_s={"build": 1.0, "load": None},
    )
    line = messages.encode(sent)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert messages.decode(line, Request) == sent


@pytest.mark.parametrize(
    "event",
    [
        Stage(stage="measure", detail="5 of 9", done=0.5),
        Note(text="two\nlines \u2028"),
        Engine(key="k"),
        Exchange(round=3, value=[1, None, {"a": 2.5}]),
        Result(engine={"key": "e"}, realised={"notes": []}, mismatch="it differs", gate="min_top1"),
        Failure(stage="build", kind="BuildError", message="no"),
    ],
)
def test_an_event_arrives_as_it_was_sent(event) -> None:
    line = messages.encode(event)
    assert line.count(b"\n") == 1
    assert messages.decode_event(line) == event


def test_numbers_of_numpy_and_what_is_no_number_pass() -> None:
    accuracy = {"sqnr_db": np.float64(30.5), "least": float("nan"), "top": float("inf")}
    arrived = messages.decode_event(messages.encode(Result(engine={}, accuracy=accuracy)))
    assert arrived.accuracy["sqnr_db"] == 30.5
    assert math.isnan(arrived.accuracy["least"])
    assert math.isinf(arrived.accuracy["top"])


def test_keys_of_a_backends_own_arrive_in_every_table() -> None:
    sent = Result(
        engine={"key": "e", "plan_bytes": [1, {"a": 2}]},
        model={"parameters": 1, "gmacs": None, "layers": 3},
        realised={"notes": [], "clients": [{"contexts": 1, "socket": 0}], "clocks_mhz": {"sm": 1}},
        accuracy={"sqnr_db": None, "again": {"sqnr_db": 3.0, "again": "x"}},
    )
    assert messages.decode_event(messages.encode(sent)) == sent


@pytest.mark.fault
@pytest.mark.parametrize(
    ("result", "place"),
    [
        (Result(engine={"bytes": -1}), "engine.bytes"),
        (Result(engine={}, model={"parameters": 1}), "model"),
        (Result(engine={}, realised={"notes": "none"}), "realised.notes"),
        (Result(engine={}, realised={"clients": [{"sm_count": "66"}]}), "realised.clients[0].sm_count"),
        (Result(engine={}, accuracy={"sqnr_db": 1.0, "max_abs": float("nan")}), "accuracy.max_abs"),
    ],
)
def test_a_result_that_no_record_could_hold_is_refused_where_it_arrives(result, place) -> None:
    """A record with it could not be read again."""
    with pytest.raises(MessageError, match=rf"malformed .*at `\$\.{re.escape(place)}`"):
        messages.decode_event(messages.encode(result))


def test_a_line_that_a_library_printed_is_no_event() -> None:
    for line in (b"cluster news of today", b"", b'{"level": "info"}', b"\xff\xfe", b"[1]"):
        assert messages.decode_event(line) is None


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "stage"}',
        b'{"event": "nothing", "text": "x"}',
        b'{"event": "note", "text": 3}',
        b'{"event": "note", "te',
        b'{"event": "result"}',
        b'{"event": "exchange", "round": "first"}',
        b'{"event": "note", "text": "\xff"}',
    ],
)
def test_a_malformed_event_is_one_error(line) -> None:
    with pytest.raises(MessageError, match="a message between processes is malformed") as caught:
        messages.decode_event(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Request, b"{}"),
        (Request, b'{"variant": {"backend": 1}, "cache": "c", "samples": "s"}'),
        (Request, b"no json"),
        (Values, b'{"values": 3}'),
    ],
)
def test_a_malformed_request_or_answer_is_one_error(kind, line) -> None:
    with pytest.raises(MessageError, match="malformed"):
        messages.decode(line, kind)


def test_what_json_cannot_carry_is_refused_where_it_is_sent() -> None:
    with pytest.raises(TypeError, match="a message holds a ndarray"):
        messages.encode(Exchange(round=0, value=np.zeros(3)))


def test_only_the_last_pass_scores_and_no_search_does(tmp_path) -> None:
    twice = dataclasses.replace(FULL, load=dataclasses.replace(FULL.load, repeats=2))
    assert not passes.request(twice, tmp_path).scores
    assert passes.request(twice, tmp_path, repeat=1).scores
    assert not passes.request(twice, tmp_path, repeat=1, search=SearchRequest(slo=Slo("p99", 1.0), search_s=1.0)).scores
    assert not passes.request(twice, tmp_path, repeat=1, accuracy=False).scores
