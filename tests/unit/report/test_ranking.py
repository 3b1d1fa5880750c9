"""Which variant to take, and what the table shows of it; never a crash on a record that lacks something."""

import dataclasses
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sweep.analysis.start_spread import SpreadHistory, StartSpread
from sweep.report import html, table
from sweep.report.ranking import answer
from sweep.report.recommendation import with_overrides
from sweep.spec import EngineAxes, LoadAxes, ModelRef, Neighbour, OnnxAxes, Precision, SessionAxes
from sweep.spec.outcome import Status
from sweep.spec.slo import Slo
from sweep.storage.record import Record
from sweep.system import serialization

SLO = Slo("p99", 5.0)


def record(label, **changes):
    model, precision, batch = label.split()
    made = Record(
        key=label,
        sweep="s",
        status="ok",
        started_at="2026-01-01T00:00:00.000+00:00",
        variant={"label": label, "model": model, "precision": precision, "batch": int(batch)},
    )
    return dataclasses.replace(made, **changes)


def peaked(label, ips, interval=None, *, batches=10, passes_ips=None, **changes):
    peak = {"ips": ips, "interval": interval, "batches": batches, "passes_ips": passes_ips, "verdict": "ok"}
    return record(label, peak=peak, **changes)


def held(label, capacity, following, *, monotonic=True, **changes):
    slo = {"capacity_ips": capacity, "next_ips": following, "confidence": capacity and 0.993, "monotonic": monotonic}
    return record(label, slo=slo, **changes)


def point(offered, p99=2.0, verdict="ok"):
    return {
        "offered_ips": offered,
        "achieved_ips": offered,
        "verdict": verdict,
        "latency_ms": {"p50": 1.0, "p90": 1.5, "p95": 1.7, "p99": p99},
    }


def labels(records):
    return [item.variant["label"] for item in records]


def test_the_highest_peak_wins_where_intervals_are_apart() -> None:
    found = answer([peaked("m fp32 1", 100, [95, 105]), peaked("m fp16 1", 200, [190, 210])], None)
    assert found.best
    assert labels([found.best]) == ["m fp16 1"]
    assert found.tied == ()
    assert "m fp16 1 at 200" in found.text
    assert "Not told apart" not in found.text


LOST = {"sqnr_db": -2.0, "expected": {"floor_db": 114.0, "tf32_db": 46.0, "expected_db": -2.1, "note": None}}


def test_a_variant_whose_outputs_rounding_loses_is_not_the_one_to_take() -> None:
    kept, lost = peaked("m fp32 1", 100, [95, 105]), peaked("m bf16 1", 200, [190, 210], accuracy=LOST)
    found = answer([kept, lost], None)
    assert found.best is kept
    assert found.tied == ()
    assert "Not ranked, since rounding alone loses their outputs (model.labels= scores them): m bf16 1." in found.text
    scored = dataclasses.replace(lost, accuracy={**LOST, "score": 0.97, "reference_score": 0.97, "scored_on": "x"})
    assert answer([kept, scored], None).best is scored
    assert answer([lost], None).best is lost


def test_overlapping_intervals_are_a_tie_and_are_named() -> None:
    records = [peaked("m a 1", 196, [188, 204]), peaked("m b 1", 200, [190, 210]), peaked("m c 1", 150, [140, 160])]
    found = answer(records, None)
    assert found.best
    assert labels([found.best, *found.tied]) == ["m b 1", "m a 1"]
    assert found.text.endswith("Not told apart from it by this measurement: m a 1.")


@pytest.mark.parametrize(("own", "other"), [(None, [99, 101]), ([117, 118], None)])
def test_a_peak_without_an_interval_is_told_only_from_what_is_far_off(own, other) -> None:
    """Its window is too correlated for an interval: 7.5% is assumed, which leaves 1.15 times open, not 1.2."""
    other_peak = peaked("m b 1", 100, other)
    assert labels(answer([peaked("m a 1", 115, own), other_peak], None).tied) == ["m b 1"]
    assert answer([peaked("m a 1", 120, own), other_peak], None).tied == ()


def starts_differ(cv, freedom=1000, **own):
    """A history: what starts differ by, and what those of single variants do."""
    spread = StartSpread(cv=cv, freedom=freedom, source="the sentinel")
    return SpreadHistory(common=spread, own={key: dataclasses.replace(spread, cv=value) for key, value in own.items()})


def test_intervals_may_overlap_where_their_difference_is_no_chance() -> None:
    """Two standard errors of 1% each: 4% apart is 2.8 of the difference, though both intervals hold 198."""
    found = answer(
        [peaked("m a 1", 202, [197.6, 206.5]), peaked("m b 1", 194, [189.7, 198.4])], None, starts_differ(1e-4)
    )
    assert found.tied == ()


def sharp(slower):
    return [peaked("m a 1", 200, [199.99, 200.01]), peaked("m b 1", 200 / slower, [199.99 / slower, 200.01 / slower])]


@pytest.mark.parametrize(
    ("history", "tied", "apart", "words"),
    [
        (None, 1.07, 1.08, "what starts differ by here is not known, 2.5% is assumed; differences under 6.8% are not"),
        (starts_differ(0.01), 1.028, 1.030, "starts differ by 1.0% here, says the sentinel; differences under 2.8%"),
        (starts_differ(0.01, freedom=3), 1.047, 1.050, "differences under 4.6% are not told apart"),
        (starts_differ(0.001, **{"m b 1": 0.05}), 1.10, 1.11, "differences under 9.5% are not told apart"),
    ],
)
def test_single_starts_are_not_told_apart_within_what_starts_differ_by(history, tied, apart, words) -> None:
    close = answer(sharp(tied), None, history)
    assert labels(close.tied) == ["m b 1"]
    assert close.text.startswith("Too noisy to decide: none of 2 variants is told from the fastest, m a 1 at 200 ")
    assert "repeats=5 starts each of them 5 times" in close.text
    found = answer(sharp(apart), None, history)
    assert found.tied == ()
    assert found.text.startswith("Fastest: m a 1 at 200 samples/s (one start each; ")
    assert words in found.text


def loaded(found, backend, own, other):
    """The record, measured on that backend while the cores were used so."""
    variant = {**found.variant, "backend": backend}
    return dataclasses.replace(found, variant=variant, peak={**found.peak, "cpu_load": {"own": own, "other": other}})


@pytest.mark.parametrize(
    ("backend", "own", "other", "apart", "words"),
    [
        ("onnxruntime", 0.5, 0.02, 1.33, "not known, 10% is assumed; differences under 25% are not told apart"),
        ("onnxruntime", 0.1, 0.5, 1.33, "not known, 10% is assumed; differences under 25% are not told apart"),
        ("onnxruntime", 0.1, 0.85, 1.77, "not known, 20% is assumed; other programs used 85% of the cores meanwhile"),
        ("tensorrt", 0.05, 0.01, 1.08, "not known, 2.5% is assumed; differences under 6.8% are not told apart"),
        ("tensorrt", 0.1, 0.9, 1.08, "not known, 2.5% is assumed; other programs used 90% of the cores meanwhile"),
    ],
)
def test_single_starts_on_cores_are_told_apart_only_where_they_differ_more(backend, own, other, apart, words) -> None:
    """Starts on a CPU differ more than those on a GPU, and more still where other programs fill the cores."""
    close, far = ([loaded(found, backend, own, other) for found in sharp(by)] for by in (apart - 0.03, apart))
    assert labels(answer(close, None).tied) == ["m b 1"]
    assert answer(far, None).tied == ()
    assert words in answer(far, None).text


def test_a_crowd_is_named_where_starts_were_measured_too() -> None:
    starts = [100.0, 101.0, 99.0]
    records = [
        loaded(peaked("m a 1", 200, [198, 202], passes_ips=[2 * ips for ips in starts]), "onnxruntime", 0.2, 0.7),
        loaded(peaked("m b 1", 100, [99, 101], passes_ips=starts), "onnxruntime", 0.1, 0.8),
    ]
    assert "(3 starts each; other programs used 70% to 80% of the cores meanwhile)" in answer(records, None).text


def test_variants_that_are_equal_for_all_practical_purposes_are_not_called_noisy() -> None:
    found = answer(sharp(1.001), None, starts_differ(0.001))
    assert found.text.startswith("No difference: all 2 variants are within 0.4% of the fastest, m a 1 at 200 ")
    assert (found.decided, found.mark(found.best), found.mark(found.tied[0])) == (False, "=", "=")


def passes(label, *each, **changes):
    ips = sum(each) / len(each)
    return peaked(label, ips, [ips * 0.5, ips * 1.5], batches=len(each), passes_ips=list(each), **changes)


def test_three_interleaved_passes_are_compared_pass_by_pass() -> None:
    """The machine swings by a half from round to round, the variants by 3% in each."""
    rounds = [100.0, 150.0, 70.0, 120.0]
    fast = passes("m a 1", *(speed * 1.03 for speed in rounds))
    slow = passes("m b 1", *(speed * (1 + 0.001 * number) for number, speed in enumerate(rounds)))
    found = answer([slow, fast], None)
    assert found.best is fast
    assert found.tied == ()
    assert "(4 starts each)" in found.text
    assert found.ratio_text(slow) == "0.970 to 0.974"
    fast.peak["passes_ips"].pop()
    assert answer([slow, fast], None).tied == (slow,)


def test_of_several_engines_each_counts_once_however_often_it_was_started() -> None:
    """Starts of one engine agree to 0.1%, engines differ by 5%: six starts of three engines are three figures."""
    fast = passes("m a 1", 100, 105, 95, 100.1, 105.1, 95.1)
    slow = passes("m b 1", 96, 91, 101, 96.1, 91.1, 101.1)
    assert answer([slow, fast], None).tied == (slow,)
    for item in (fast, slow):
        item.variant["load"] = {"builds": 3}
    found = answer([slow, fast], None)
    assert found.tied == (slow,)
    assert "(3 engines each)" in found.text


def test_a_hundred_variants_do_not_hide_one_that_is_half_as_fast() -> None:
    rng = np.random.default_rng(1)
    rest = [passes(f"m b {number}", *(100 * np.exp(0.01 * rng.standard_normal(3)))) for number in range(99)]
    slow = passes("m slow 99", *(66 * np.exp(0.01 * rng.standard_normal(3))))
    assert slow not in answer([*rest, slow], None).tied


def test_models_are_not_ranked_against_each_other() -> None:
    records = [peaked("big a 1", 100, [99, 101]), peaked("small a 1", 900, [890, 910]), peaked("big b 1", 50, [49, 51])]
    found = answer(records, None)
    assert (found.best, found.tied) == (None, ())
    assert [part.best.key for part in found.parts] == ["big a 1", "small a 1"]
    lines = found.text.splitlines()
    assert [line.partition(" at ")[0] for line in lines[1:]] == ["big: Fastest: big a 1", "small: Peak: small a 1"]
    found = with_overrides(found, {"big a 1": ("model=big",), "small a 1": ("model=small",)})
    assert found.settings.splitlines() == ["With model=big", "With model=small"]
    assert [found.mark(record) for record in records] == [">", ">", ""]
    assert outcome(records).count(" > ") + outcome(records).count("\n>") >= 2
    same_name = [peaked("m a 1", 100, [99, 101]), peaked("m b 1", 50, [49, 51])]
    for number, item in enumerate(same_name):
        item.variant["model_ref"] = {"digest": str(number), "inputs": []}
    assert answer(same_name, None).best is None
    for number, item in enumerate(same_name):
        item.variant["model_ref"] = {"digest": "one", "shape": [{"name": "seq", "size": 64 * number + 64}]}
    by_shape = answer(same_name, None).text.splitlines()
    assert by_shape[0].startswith("One answer a model and shape")
    assert [line.partition(" at ")[0] for line in by_shape[1:]] == ["m seq:64: Peak: m a 1", "m seq:128: Peak: m b 1"]


def test_a_model_alone_is_not_ranked_against_the_same_beside_another() -> None:
    records = [peaked(f"m {name} 1", peak, [peak - 1, peak + 1]) for name, peak in (("a", 100), ("b", 60), ("c", 40))]
    other = Neighbour(
        onnx=OnnxAxes(model=ModelRef(name="other"), precision=Precision(name="fp32", dtype="fp32")),
        engine=EngineAxes(),
        session=SessionAxes(),
        load=LoadAxes(kind="closed"),
    )
    for item, sharing in zip(records[1:], ("processes", "streams"), strict=True):
        item.variant.update(sharing=sharing, beside=[serialization.to_plain(other)])
    lines = answer(records, None).text.splitlines()
    assert lines[0].startswith("One answer for each model alone, and one beside others")
    heads = [line.partition(" at ")[0] for line in lines[1:]]
    assert heads == ["m: Peak: m a 1", "m beside other: Fastest: m b 1"]


def test_an_unstable_peak_neither_wins_nor_ties() -> None:
    odd, one, two = sharp(1.2)[0], *sharp(1.1)
    odd = dataclasses.replace(odd, key="m odd 1", variant={**odd.variant, "label": "m odd 1", "batch": 7})
    odd.peak.update(ips=900.0, interval=[100, 9000], verdict="unstable", reason="moved by 31%")
    found = answer([odd, one, two], None)
    assert found.best is one
    assert odd not in found.tied
    assert not found.decided
    assert found.mark(one) == "="
    words = (
        "Too noisy to decide: the highest peak, m odd 1 at 900 samples/s, is unstable (moved by 31%). Stop what else "
    )
    assert found.text.startswith(words)
    assert "Of 2 steady variants the fastest is m a 1 at " in found.text
    slower = dataclasses.replace(odd, peak={**odd.peak, "ips": 5.0})
    assert answer([slower, one, two], None).text.startswith("Fastest: m a 1 at ")
    assert found.text.endswith("Not ranked, since their peaks are unstable or short (~): m odd 1.")
    assert "~900" in outcome([odd, one, two])
    for item in (one, two):
        item.peak["verdict"] = "short"
    found = answer([odd, one, two], None)
    assert found.text.startswith("Too noisy to decide: every peak is unstable or short; the highest is m odd 1 at 900 ")
    assert (found.best, set(labels(found.tied))) == (odd, {"m a 1", "m b 1"})


@given(st.integers(2, 12))
def test_the_more_variants_the_more_it_takes_to_name_a_difference(variants) -> None:
    """2.35 standard errors of the difference: enough for one pair, not for the best of many."""
    rest = [peaked(f"m b {number}", 100, [98, 102]) for number in range(1, variants)]
    best = peaked("m a 99", 103.0, [101.0, 105.0])
    assert bool(answer([best, *rest], None, starts_differ(1e-4)).tied) == (variants > 2)


def drifting(label, ips, verdict, reason=None):
    drift = {"verdict": verdict, "reason": reason, "sentinel_key": "k", "stretches": [0], "before": 1, "after": 1}
    return peaked(label, ips, [ips * 0.99, ips * 1.01], drift=drift)


def test_what_drifted_is_not_ranked_and_is_named() -> None:
    odd, one, two = (
        drifting("m a 1", 300, "drifted", "it [ran] off"),
        drifting("m b 2", 200, "steady"),
        peaked("m c 4", 1),
    )
    found = answer([odd, one, two], None)
    assert found.best is one
    assert odd not in found.tied
    assert found.text.endswith("Not ranked, since the machine drifted while they were measured (force=true): m a 1.")
    text = outcome([odd, one, two])
    assert "ok, drift" in row(text, " 300 ")
    assert "m a 1: the machine drifted: it [ran] off" in text


def test_where_all_drifted_they_are_ranked_with_a_warning() -> None:
    odd = [drifting("m a 1", 300, "drifted", "x"), drifting("m b 2", 200, "drifted", "x")]
    found = answer(odd, None)
    assert found.best is odd[0]
    assert "drifted while all of them were measured" in found.text


def test_drift_that_is_not_known_yet_counts_as_none() -> None:
    found = answer([drifting("m a 1", 300, "unknown"), drifting("m b 2", 200, "steady")], None)
    assert labels([found.best]) == ["m a 1"]
    assert "drift" not in found.text


@given(st.lists(st.tuples(st.floats(1, 1e6), st.floats(0.001, 0.3)), min_size=1, max_size=6), st.randoms())
def test_ranking_does_not_depend_on_the_order_of_records(rows, rng) -> None:
    records = [
        peaked(f"m p {number}", ips, [ips * (1 - share), ips * (1 + share)])
        for number, (ips, share) in enumerate(dict(rows).items())
    ]
    first, second = (answer(order, None) for order in (records, rng.sample(records, len(records))))
    assert first.best is second.best
    assert set(labels(first.tied)) == set(labels(second.tied))
    assert first.best.peak["ips"] == max(item.peak["ips"] for item in records)


def test_an_slo_ranks_by_capacity_not_by_peak() -> None:
    fast = held("m fast 1", 100, 120, peak={"ips": 900, "interval": None, "verdict": "ok"})
    steady = held("m steady 1", 300, 350, peak={"ips": 500, "interval": None, "verdict": "ok"})
    found = answer([fast, steady], SLO)
    assert found.best is steady
    assert found.tied == ()
    assert "Take m steady 1: 300 samples/s keep p99 <= 5 ms (99.3% confidence)" in found.text
    assert "The next rate tried, 350 samples/s, missed the limit" in found.text
    assert answer([fast, steady], None).best is fast


def test_a_ladder_that_never_failed_ties_with_whatever_is_above_it() -> None:
    open_ended, best = held("m open 1", 100, None), held("m best 1", 300, 350)
    found = answer([open_ended, best], SLO)
    assert labels(found.tied) == ["m open 1"]
    assert "Every rate tried kept the limit" in answer([open_ended], SLO).text


def test_a_variant_whose_search_gave_no_answer_is_tied_unless_it_is_seen_to_be_slower() -> None:
    best, unknown, slow = held("m best 1", 443, 533), held("m fast 1", None, 864), held("m slow 1", None, 200)
    found = answer([best, unknown, slow], SLO)
    assert found.best is best
    assert labels(found.tied) == ["m fast 1"]
    assert found.ratio_text(unknown) == "0.00 to 2.13"
    assert answer([best, unknown], SLO).text.startswith(
        "Too noisy to decide between 2 variants (raise slo.search_s). Highest: m best 1: 443 samples/s keep p99 <= 5 ms"
    )


def test_estimated_capacities_tell_apart_what_the_rates_that_were_tried_do_not() -> None:
    best, other = held("m best 1", 700, 900), held("m other 1", 400, 720)
    assert answer([best, other], SLO).tied == (other,)
    best.slo["estimate_interval"], other.slo["estimate_interval"] = [740, 780], [500, 540]
    found = answer([best, other], SLO, starts_differ(0.005))
    assert found.tied == ()
    assert found.ratio_text(other) == "0.64 to 0.73"


def test_a_curve_that_recovers_is_said() -> None:
    assert "not monotonic" in answer([held("m a 1", 100, 200, monotonic=False)], SLO).text


def test_confidence_is_never_printed_as_certainty() -> None:
    sure = held("m a 1", 100, 200)
    sure.slo["confidence"] = 0.99999
    assert "100" not in answer([sure], SLO).text.partition("ms (")[2].partition("confidence")[0]


@pytest.mark.parametrize("slo", [None, SLO])
@pytest.mark.parametrize(
    "records",
    [
        [],
        [record("m a 1")],
        [held("m a 1", None, 100)],
        [peaked("m a 1", None)],
        [held("m a 1", 9, 10, status="invalid", peak={"ips": 9, "interval": None, "verdict": "ok"})],
    ],
)
def test_no_figure_is_no_answer(records, slo) -> None:
    found = answer(records, slo)
    assert (found.best, found.tied) == (None, ())
    reason = "no variant held p99 <= 5 ms" if slo else "no variant that ended ok has a peak"
    assert found.text.startswith(f"No answer: {reason}")


def outcome(records, slo=None, width=200):
    console = Console(record=True, width=width, file=io.StringIO())
    table.print_outcome(console, records, answer(records, slo), slo)
    return console.export_text()


def row(text, *words):
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_the_table_marks_the_best_and_what_ties_with_it() -> None:
    text = outcome([peaked("m a 1", 196, [188, 204]), peaked("m b 2", 200, [190, 210]), peaked("m c 4", 1, [1, 1])])
    assert row(text, " b ", " 2 ").split()[0] == ">"
    assert row(text, " a ", " 1 ").split()[0] == "="
    assert row(text, " c ", " 4 ").split()[0] == "c"


def test_the_table_shows_what_varies_and_the_figures() -> None:
    one = peaked("m a 1", 1000, [999, 1001], points=[point(200, 2.5), point(800, 4.25)], accuracy={"sqnr_db": 41.26})
    text = outcome([one, peaked("m a 8", 50, [49, 51])])
    assert "batch" in text
    assert "precision" not in text
    cells = row(text, "1,000").split()
    assert cells == [">", "1", "ok", "1,000", "1", "2.5", "4.25", "1", "41.3"]
    assert row(text, " 8 ").split() == ["8", "ok", "50", "-", "-", "-", "0.046", "to", "0.054", "-"]


def test_an_unknown_accuracy_never_looks_exact() -> None:
    exact = {"sqnr_db": None, "max_abs": 0.0, "max_rel": 0.0, "nonfinite": 0}
    unknown = {"sqnr_db": None, "max_abs": None, "unknown": "no output is of floats"}
    text = outcome([peaked("m a 1", 1000, accuracy=exact), peaked("m b 1", 50, accuracy=unknown)])
    assert row(text, "1,000").split()[-1] == "exact"
    assert row(text, " b ").split()[-1] == "-"
    both = [peaked("m a 1", 1000, accuracy=exact), peaked("m b 1", 50, accuracy=unknown)]
    page = html.render("t", both, answer(both, None))
    assert page.count(">exact</td>") == 1


def test_points_that_do_not_count_in_full_are_marked_and_counted() -> None:
    text = outcome([peaked("m a 1", 1000, points=[point(200, verdict="unstable"), point(1100, verdict="overloaded")])])
    assert "~2" in text
    assert "Of 3 points: 1 unstable (~ in the table" in text


def test_notes_become_footnotes_once_each() -> None:
    slow, odd = "int8 is emulated here", "kept [Resize] in fp32"
    records = [
        peaked("m int8 1", 3, realised={"notes": [slow]}),
        peaked("m int8 8", 2, realised={"notes": [slow, odd]}),
        peaked("m fp32 1", 1, realised={"notes": None}),
    ]
    text = outcome(records)
    assert [line for line in text.splitlines() if line.startswith("*")] == [f"* {slow}", f"** {odd}"]
    assert row(text, " int8* ")
    assert row(text, " int8*,** ")
    assert row(text, " fp32 ")


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("slo", [None, SLO])
def test_a_record_with_nothing_in_it_is_a_row(status, slo) -> None:
    error = {"stage": "build", "kind": "X", "message": "no [kernel] for it", "stderr_tail": []}
    text = outcome([record("m a 1", status=status, error=None if status == "ok" else error)], slo)
    assert status in text
    assert ("m a 1: " in text and "no [kernel] for it" in text) == (status != "ok")
    assert "No answer" in text


def test_no_records_is_no_crash() -> None:
    assert "No answer" in outcome([])


def test_brackets_in_names_are_not_eaten_as_markup() -> None:
    text = outcome([peaked("net[v2] a 1", 1), peaked("net[bold] a 1", 2)])
    assert row(text, "net[v2]", "ok")
    assert row(text, "net[bold]", "ok")
    assert "\nnet[bold]: Peak: net[bold] a 1 at 2 " in text


@pytest.mark.parametrize(
    ("width", "parts", "numbered"), [(30, 5, True), (44, 3, True), (60, 2, True), (80, 2, False), (120, 1, False)]
)
def test_a_narrow_terminal_keeps_every_mark_and_column(width, parts, numbered) -> None:
    records = [peaked("m fp16 32", 208584, [200000, 210000], realised={"notes": ["a note of many words " * 4]})]
    records.append(peaked("m int8 8", 59987, [59000, 60000], points=[point(48000)]))
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    table.print_outcome(console, records, answer(records, None, starts_differ(1e-4)), None)
    lines = console.file.getvalue().splitlines()
    assert sum("\u2500\u2500" in line for line in lines) == parts
    assert sum(line.startswith(" >") for line in lines) == parts, "the mark is in each part"
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for cell in ("208,584", "59,987", "fp16*", "at 80%", "SQNR dB", "a note of many words a note"):
        assert cell in text
    assert any(line.split()[:1] == ["#"] for line in lines) is numbered
    assert not any(line.startswith(("rds", "ords")) for line in lines), "no word is broken"
