"""``layers=true``: the layers of each engine are profiled once it is measured, or once there is a record without."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import CLOSED

from sweep.cli import commands

if TYPE_CHECKING:
    import pytest
    from conftest import Cli


ROOT = Path(__file__).resolve().parents[2]


def profiles(cli: Cli) -> dict[str, dict[str, Any]]:
    """Each layer profile, by its key."""
    return {path.stem: json.loads(path.read_text()) for path in cli.results.glob("*/layers/*.json")}


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_the_layers_of_a_record_are_profiled_and_nothing_is_measured_again(cli: Cli) -> None:
    """First measured without, then with: keys, records and samples stay as they are, and a third run has no work."""
    words = ("-m", "backend=onnxruntime,simulated", "model=digits", "precision=fp32", *CLOSED, "name=a")
    assert cli.run(*words).returncode == 0
    records = files(cli.results / "a" / "records")
    samples = files(cli.results / "a" / "samples")
    done = cli.run(*words, "layers=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 to measure, 2 measured already, 1 to profile by layer" in done.stdout
    assert "note: layers=true: simulated has no layers to profile" in done.stdout
    assert files(cli.results / "a" / "samples") == samples
    ((key, profile),) = profiles(cli).items()
    profiled = files(cli.results / "a" / "records")
    record, before = (json.loads(kept.pop(f"{key}.json")[1]) for kept in (profiled, records))
    assert profiled == records
    summary = record["engine"].pop("layers")
    assert record == before
    assert summary["layers"] == len(profile["layers"])
    assert summary["timed_us"] == profile["timed_us"]
    assert 0 < summary["gemm_share"] < 1
    joined = {name for layer in profile["layers"] for name in layer["nodes"]}
    assert (profile["key"], profile["source"], profile["inferences"]) == (key, "onnxruntime", 100)
    assert joined == {node["name"] for node in profile["nodes"]}
    assert all(layer["nodes"] or layer["added"] for layer in profile["layers"])
    total_us = sum(layer["time"]["median_us"] for layer in profile["layers"])
    assert total_us <= profile["timed_us"] * 1.01
    assert profile["tensors"]["x"] == {"shape": [1, 1, 8, 8], "dtype": "fp32", "constant": False}
    assert [layer["outputs"][0]["shape"] for layer in profile["layers"]][-1] == [1, 10]
    assert "profile" not in cli.run(*words, "layers=true").stdout.replace("layers to profile", "")


def test_two_clients_are_measured_then_one_profiles_and_a_new_measurement_renews_it(cli: Cli) -> None:
    words = ("model=digits", "backend=onnxruntime", "clients=2", *CLOSED, "name=a")
    first = cli.run(*words, "layers=true")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "1 to measure, 1 to profile by layer" in first.stdout
    assert len(profiles(cli)) == 1
    cli.run(*words, "force=true")
    assert profiles(cli) == {}  # it was of the record that was replaced


def test_why_int8_differs_from_fp32_is_told_by_their_nodes(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """On onnxruntime: the convolutions are the same work on both sides, and the quantisers are what int8 alone has."""
    done = cli.run("model=digits", "precision=fp32,int8", *CLOSED, "layers=true", "name=a")
    assert done.returncode == 0, done.stdout + done.stderr
    words = ("layers", "a", "--variant", "fp32", "--variant", "int8", "--results", str(cli.results))
    assert commands.main([*words, "--json", str(cli.results / "why.json")]) == 0
    assert capsys.readouterr().out.startswith(("B (int8) is ", "B (int8) takes as long as "))
    groups = json.loads((cli.results / "why.json").read_text())["groups"]
    presence = {group["name"]: group["presence"] for group in groups}
    assert {presence[name] for name in ("conv1", "conv2", "conv3", "logits")} == {"both"}
    quantisers = [group for group in groups if group["what"] == "quantise/dequantise"]
    assert quantisers
    assert {group["presence"] for group in quantisers} == {"B"}
    assert 'id="profiles"' in (cli.results / "a" / "report.html").read_text()


def test_the_loop_of_the_how_to_finds_its_faults_mends_them_and_tells_what_that_did(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the files of docs/howto/find-the-bottleneck.md as they are, but for smaller sizes."""
    page = (ROOT / "docs" / "howto" / "find-the-bottleneck.md").read_text()
    folder, sizes = cli.results.parent, "TOKENS, WIDTH, HIDDEN, HEADS = "
    for name, text in re.findall(r"^:caption: (\S+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text.replace(f"{sizes}64, 192, 256, 4", f"{sizes}32, 64, 96, 4"))
    monkeypatch.chdir(folder)
    exec(compile((folder / "needless.py").read_text(), "needless.py", "exec"), {})  # noqa: S102 - a page of ours
    words = ("model.path=needless.onnx", "batch=4", "graph=none,passes:mended", "layers=true", "backend=onnxruntime")
    done = cli.run(*words, *CLOSED, "name=both")
    assert done.returncode == 0, done.stdout + done.stderr
    where = ("--results", str(cli.results))
    variants = {str(json.loads(path.read_text())["variant"]["graph"]): path for path in cli.results.glob("*/records/*")}
    before, after = (str(variants[name]) for name in sorted(variants, key=lambda name: "mended" in name))
    assert commands.main(["layers", before, *where, "--json", "before.json", "--all"]) == 0
    printed = capsys.readouterr().out
    findings = {item["kind"]: item for item in json.loads(Path("before.json").read_text())["findings"]}
    for kind, title in (("unfused_norm", "2 norms in primitives"), ("unfused_attention", "2 attentions in ")):
        finding = findings[kind]
        assert finding["title"].startswith(title)
        assert finding["cost_us"] > finding["saving_us"] > 0
        assert f"Try: {finding['advice'][:30]}" in printed
    assert commands.main(["layers", after, *where, "--json", "after.json"]) == 0
    assert not {"unfused_norm"} & {item["kind"] for item in json.loads(Path("after.json").read_text())["findings"]}
    capsys.readouterr()
    assert commands.main(["layers", before, after, *where, "--json", "difference.json"]) == 0
    assert capsys.readouterr().out.startswith(("B (passes:mended) is ", "B (passes:mended) takes as long as "))
    presence = {group["name"]: group["presence"] for group in json.loads(Path("difference.json").read_text())["groups"]}
    assert (presence["block0/feed/there"], presence["block0/feed/up"]) == ("A", "both")
