"""``together=`` and ``beside=``: the variants that they stand for, and what is refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sweep import spec
from sweep.config import sweep_file, variants
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from sweep.spec import Variant

PAIR = "together=[{model:mlp,batch:2},{model:tiny_cnn,rate:200,slo:{p99_ms:20}}]"
BESIDE = "beside=[{model:mlp}]"
SIMULATED = ("backend=simulated", "load=closed")


def planned(*words: str) -> list[Variant]:
    request = sweep_file.read_words(words)
    assert request is not None
    return [variants.from_config(config) for config in request.configs]


def test_each_model_is_measured_alone_and_beside_the_others_with_its_own_share() -> None:
    found = planned(*SIMULATED, PAIR, "sharing=processes,mps:75/25", "load.min_s=0.5")
    shown = [
        (each.onnx.model.name, each.engine.batch, each.session.sharing, each.session.mps, each.load.kind)
        for each in found
    ]
    assert shown == [
        ("mlp", 2, None, None, "closed"),
        ("tiny_cnn", 1, None, None, "poisson"),
        ("mlp", 2, "processes", None, "closed"),
        ("mlp", 2, "mps:75/25", 75, "closed"),
        ("tiny_cnn", 1, "processes", None, "poisson"),
        ("tiny_cnn", 1, "mps:25/75", 25, "poisson"),
    ]
    assert {each.load.min_s for each in found} == {0.5}
    (neighbour,) = found[3].session.beside or ()
    assert (neighbour.name, neighbour.slo, neighbour.load.min_s) == ("tiny_cnn-fp32-b1@200", "p99_ms:20", 0.5)
    keys = [spec.variant_key(each) for each in found]
    assert [spec.variant_key(spec.alone(each)) for each in found] == [keys[0], keys[1], *[keys[0]] * 2, *[keys[1]] * 2]
    assert spec.variant_key(spec.members_of(found[3])[1]) == keys[1]
    assert spec.member(found[3], 1).session.mps == 25
    assert spec.from_record(spec.flat(found[3])) == found[3], "a record restores it"


def test_swept_settings_are_those_of_all_and_a_table_wins_over_them(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(
        "backend: simulated\nload: closed\nbatch: 4\n"
        "together:\n  - {model: mlp, batch: 2}\n  - {model: tiny_cnn, backend: {script: {slows: 3}}}\n"
        "sweep: {streams: [1, 2], sharing: [streams]}\n"
    )
    request = sweep_file.read(path, ())
    found = [variants.from_config(config) for config in request.configs]
    assert len(found) == 8
    for each in found:
        assert each.engine.batch == {"mlp": 2, "tiny_cnn": 4}[each.onnx.model.name]
        for other in each.session.beside or ():
            assert other.session.streams == each.session.streams
            assert other.engine.batch == {"mlp": 2, "tiny_cnn": 4}[other.onnx.model.name]
    assert {each.session.script and each.session.script.slows for each in found} == {None, 3.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["together=[{model:mlp}]"], "together: 1 model is nothing side by side; name 2 or more"),
        (["together=[{model:mlp},{model:nonet}]"], "model=nonet: no such model; there are:"),
        (["together=[{model:mlp},{batch:2}]"], "together: {batch:2} names no model; add model:NAME"),
        (["together=mlp,tiny_cnn"], "together=mlp,tiny_cnn: one list of models stands here"),
        (["together=[mlp,tiny_cnn]"], "together=['mlp', 'tiny_cnn']: give tables of settings"),
        (["together=[{model:mlp,bacth:2},{model:mlp}]"], "bacth: no such key; did you mean batch?"),
        (["together=[{model:mlp,rate:-3},{model:mlp}]"], "together: rate=-3: a rate is a number above 0"),
        (["together=[{model:mlp,rate:3,load:closed},{model:mlp}]"], "together: rate=3 and load=closed"),
        (["beside=[{model:mlp,slo:{p98:3}}]"], "slo of mlp: give one limit, as in slo:{p99_ms:20}"),
        (["beside=[{model:mlp,slo:{p99_ms:0}}]"], "slo of mlp: p99_ms=0: a limit is a number above 0, ms"),
        (["beside=[{model:mlp,load:trace}]"], "load=trace"),
        (["beside=[{model:mlp,backend:onnxruntime}]"], "beside: mlp has backend onnxruntime, the measured network"),
        ([BESIDE, "clients=2"], "clients=2: networks side by side have one process each"),
        ([BESIDE, "mps=50"], "mps=50: networks side by side have their shares from sharing="),
        ([BESIDE, "sharing=mps:75/50"], "sharing=mps:75/50: the shares add up to 125 per cent"),
        ([BESIDE, "sharing=mps:75"], "sharing=mps:75: 1 shares for 2 networks; give one for each"),
        ([BESIDE, "sharing=mps:0/50"], "sharing=mps:0/50: a share is 1 or more"),
        ([BESIDE, "sharing=green:64/64"], "sharing=green:64/64: backend simulated has no green contexts"),
        ([BESIDE, "sharing=magic"], "sharing=magic: no such way to share; there are: processes, streams"),
        (["sharing=processes"], "sharing=processes: there is nothing to share with"),
    ],
)
def test_what_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(*SIMULATED, *words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_refused_with_the_line_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text("backend: simulated\ntogether:\n  - {model: mlp}\n  - {model: tiny_cnn, bacth: 2}\n")
    with pytest.raises(ConfigError, match=r"pair\.yaml:4: bacth: no such key; did you mean batch\?"):
        sweep_file.read(path, ())


def test_a_file_cannot_choose_code_for_a_neighbour(tmp_path: Path) -> None:
    """As for any other model: what a file from elsewhere names is not imported unless it is typed."""
    path = tmp_path / "pair.yaml"
    path.write_text("backend: simulated\ntogether: [{model: mlp}, {model: tiny_cnn, graph: 'os.path:join'}]\n")
    with pytest.raises(ConfigError, match=r"os\.path:join"):
        [variants.from_config(config) for config in sweep_file.read(path, ()).configs]
