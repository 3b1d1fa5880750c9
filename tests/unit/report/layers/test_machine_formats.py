"""What other tools read: JSON, CSV and the trace of Perfetto; the pages, without a browser."""

import csv
import io
import json
import re

from profiled_layers import FP16, INT8, layer, source, time

from sweep.report import layers
from sweep.report.layers import page

HOSTILE = "</script><img src=x onerror=alert(1)>"


def test_the_trace_has_a_slice_a_layer_and_a_track_a_stream() -> None:
    kernels = [{"name": "k1", "time": time(30.0)}, {"name": "k2", "time": time(10.0)}]
    first = source(
        "net",
        [layer("a", 40.0, "x", kernels=kernels), layer("b", 20.0, "y", stream=1), layer("c", None, "z", stream=None)],
        {"x": "Conv", "y": "Relu", "z": "Relu"},
    )
    events = json.loads(layers.as_trace([first, source("other", *FP16)]))["traceEvents"]
    names = {(e["pid"], e.get("tid")): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names[1, None].startswith("net on NVIDIA H200")
    assert (names[1, 1], names[1, 2], names[2, 1]) == ("stream 0", "stream 1", "stream 0")
    assert "layers" in names.values()
    slices = [(e["pid"], e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert slices[:4] == [
        (1, 1, "x", 0.0, 40.0),
        (1, 1, "k1", 0.0, 30.0),
        (1, 1, "k2", 30.0, 10.0),
        (1, 2, "y", 40.0, 20.0),
    ]
    assert [item[2] for item in slices[4:]] == ["block1/{conv, relu}", "block2.conv"]


def test_json_and_csv_have_every_layer_with_its_figures() -> None:
    net = source("net", [layer("=a()", 40.0, "x"), layer("b", 10.0)], {"x": "Conv"})
    content = json.loads(layers.as_json(net))
    assert (content["format"], content["label"], content["totals"]["layers_us"]) == ("sweep-layers", "net", 50.0)
    assert [(row["name"], row["time_us"], row["share"]) for row in content["rows"]] == [
        ("=a()", 40.0, 0.8),
        ("b", 10.0, 0.2),
    ]
    rows = list(csv.DictReader(io.StringIO(layers.as_csv(net))))
    assert [(row["layer"], row["nodes"], row["added"], row["time_us"]) for row in rows] == [
        ("'=a()", "x", "", "40.0"),
        ("b", "", "reformat", "10.0"),
    ]


def test_json_and_csv_of_a_difference_name_the_same_groups() -> None:
    difference = layers.differ(source("fp16", *FP16), source("int8", *INT8))
    content = json.loads(layers.difference_json(difference))
    assert content["headline"] == difference.headline
    assert (content["a"]["us"], content["b"]["us"], content["of"]) == (160.0, 225.0, "inference")
    assert content["groups"][0] == {
        "name": "block1/conv_q",
        "op": "QuantizeLinear",
        "what": "quantise/dequantise",
        "presence": "B",
        "nodes": ["block1/conv_q"],
        "a_us": 0.0,
        "b_us": 60.0,
        "change_us": 60.0,
        "ratio": None,
        "a": [],
        "b": ["quantise1"],
    }
    rows = list(csv.DictReader(io.StringIO(layers.difference_csv(difference))))
    assert [row["node"] for row in rows] == [group["name"] for group in content["groups"]]
    assert rows[0]["only"] == "B"


def test_names_of_a_network_are_text_in_the_pages_and_nothing_is_fetched(monkeypatch) -> None:
    monkeypatch.setattr(page, "_plotly", lambda: "/* plotly */")
    bad = source(HOSTILE, [layer(HOSTILE, 40.0, HOSTILE), layer("b", 10.0)], {HOSTILE: "Conv"}, notes=[HOSTILE])
    for content in (layers.profile_page(bad), layers.difference_page(layers.differ(bad, source("net", *FP16)))):
        text = content.decode()
        assert HOSTILE not in text
        assert text.count("<script") == text.count("</script>") == 3
        assert "<img" not in text
        assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
        assert "default-src 'none'" in text
        assert "&lt;/script&gt;" in text


def test_the_treemap_sums_up_and_has_every_layer_below_its_scope() -> None:
    tiles = page._tiles(source("net", *FP16))
    values = dict(zip(tiles["ids"], tiles["values"], strict=True))
    assert values == {"/": 150.0, "/block1/": 100.0, "/block1/#0": 100.0, "/block2/": 50.0, "/block2/#1": 50.0}
    assert dict(zip(tiles["ids"], tiles["labels"], strict=True))["/block1/#0"] == "conv + relu"
    for tile, parent in zip(tiles["ids"], tiles["parents"], strict=True):
        inner = [values[other] for other, above in zip(tiles["ids"], tiles["parents"], strict=True) if above == tile]
        assert not inner or sum(inner) == values[tile]
        assert parent == "" or parent in values


def test_the_steps_of_the_waterfall_lead_from_one_time_to_the_other() -> None:
    steps = page._waterfall(layers.differ(source("fp16", *FP16), source("int8", *INT8)))
    assert [(step["name"], step["us"]) for step in steps["steps"]] == [
        ("quantise/dequantise (only B)", 60.0),
        ("Conv (fp16; int8)", -30.0),
        ("elementwise (only B: fused in A)", 20.0),
        ("reformat (only B)", 15.0),
        ("1 more", 0.0),
    ]
    assert steps["a"] + sum(step["us"] for step in steps["steps"]) == steps["b"] == 225.0
