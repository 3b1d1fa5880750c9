"""`load.shapes` and `load.buckets`: the forms that are taken, the largest engine, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from factories import config

from sweep import spec
from sweep.config import sweep_file, variants
from sweep.errors import ConfigError, SweepError
from sweep.spec import engine_key, shape_text, variant_key

if TYPE_CHECKING:
    from pathlib import Path


def made(shapes: Any, **values: Any) -> Any:
    return variants.from_config(config(model__name="bert_base", load__shapes=shapes, **values))


@pytest.mark.parametrize(
    "shapes",
    [
        {64: 2, 384: 1, 128: 1},
        {"64": 0.5, "128": 0.25, "384": 0.25},
        [{"shape": "seq:384", "share": 5}, {"shape": {"seq": 64}, "share": 10}, {"shape": "seq:128", "share": 5}],
    ],
)
def test_every_form_of_a_mix_is_one_variant(shapes: Any) -> None:
    variant = made(shapes)
    assert [(shape_text(item.shape), item.share) for item in variant.load.shapes.entries] == [
        ("seq:64", 0.5),
        ("seq:128", 0.25),
        ("seq:384", 0.25),
    ]
    assert shape_text(variant.onnx.model.shape) == "seq:384"
    assert variant.label.endswith("mix64:0.5+128:0.25+384:0.25")
    assert variant_key(variant) == variant_key(made({64: 2, 384: 1, 128: 1}))
    alone = variants.from_config(config(model__name="bert_base", shape="seq:384"))
    assert engine_key(variant) == engine_key(alone), "the largest engine is that of the static variant"
    assert variant_key(variant) != variant_key(alone)


def test_a_request_takes_the_smallest_bucket_that_holds_it(tmp_path: Path) -> None:
    variant = made({10: 1, 100: 1, 128: 1, 200: 1}, load__buckets=[384, 128])
    assert [shape_text(shape) for shape in variant.load.engine_shapes] == ["seq:128", "seq:384"]
    assert variant.load.engine_places == (0, 0, 0, 1)
    assert shape_text(variant.onnx.model.shape) == "seq:384"
    (tmp_path / "sizes.csv").write_text("seq\n7\n200\n7\n9\n")
    recorded = made(str(tmp_path / "sizes.csv"), load__buckets=[256])
    assert [(shape_text(item.shape), item.share) for item in recorded.load.shapes.entries] == [
        ("seq:7", 0.5),
        ("seq:9", 0.25),
        ("seq:200", 0.25),
    ]
    assert recorded.label.endswith("mix-sizes buckets256")


def test_the_profiles_of_one_engine_have_the_shapes_of_the_load() -> None:
    static = made({64: 1, 128: 3, 384: 1})
    covering = made({64: 1, 128: 3, 384: 1}, profiles="range")
    each = made({64: 1, 128: 3, 384: 1}, profiles="per_shape")
    switched = made({64: 1, 128: 3, 384: 1}, profiles="per_shape", profile_switch=True)
    limits = [[shape_text(shape) for shape in profile] for profile in covering.engine.profiles.limits]
    assert limits == [["seq:64", "seq:128", "seq:384"]], "optimized for the shape of most requests"
    assert [[shape_text(shape) for shape in profile] for profile in each.engine.profiles.limits] == [
        [f"seq:{size}"] * 3 for size in (64, 128, 384)
    ]
    padded = made({64: 1, 128: 3, 384: 1}, load__buckets=[128, 384], profiles="range")
    assert [shape_text(shape) for shape in padded.engine.profiles.limits[0]] == ["seq:128", "seq:128", "seq:384"]
    sides = [{"shape": "h:16+w:64", "share": 1}, {"shape": "h:32+w:32", "share": 1}]
    flat = variants.from_config(config(model__name="tiny_cnn", load__shapes=sides, profiles="range"))
    assert [shape_text(shape) for shape in flat.engine.profiles.limits[0]] == ["h:16+w:32", "h:32+w:32", "h:32+w:64"]
    assert covering.onnx.model.open_dimensions == ("seq",)
    assert static.onnx.model.open_dimensions is None
    every = (static, covering, each, switched)
    assert len({variant_key(one) for one in every}) == len({one.label for one in every}) == 4
    assert len({engine_key(one) for one in every}) == 3
    assert engine_key(each) == engine_key(switched), "one engine, other contexts"
    assert variant_key(static) == variant_key(made({64: 1, 128: 3, 384: 1}, profile_switch=True))
    assert "profiles-range" in covering.label.split()
    assert "switched" in switched.label.split()


def test_the_key_of_a_load_of_shapes_is_that_of_earlier_versions() -> None:
    """Records of sweeps from before ``profiles`` are found again."""
    assert variant_key(made({64: 1, 128: 3, 384: 1})) == "aa4b472424927616"


@pytest.mark.parametrize(
    ("table", "peak", "word"),
    [
        ({"uniform": {"least": 8, "most": 32, "step": 8}}, 0.25, "mix-uniform:8..32/8"),
        ({"normal": {"mean": 20, "std": 4, "least": 8, "most": 32, "step": 4}}, None, "mix-normal20,4:8..32/4"),
        (
            {"lognormal": {"median": 16, "sigma": 0.5, "least": 1, "most": 64}},
            None,
            "mix-lognormal16,0.5:1..64",
        ),
    ],
)
def test_a_distribution_is_the_mix_of_its_steps(table: dict[str, Any], peak: float | None, word: str) -> None:
    variant = made(table, load__buckets=[16, 64])
    entries = [(entry.shape[0].size, entry.share) for entry in variant.load.shapes.entries]
    ((kind, values),) = table.items()
    assert {size for size, _ in entries} <= set(range(values["least"], values["most"] + 1, values.get("step", 1)))
    shares = dict(entries)
    assert sum(shares.values()) == pytest.approx(1.0)
    draws = np.random.default_rng(0)
    if kind == "uniform":
        assert set(shares.values()) == {peak}
    else:
        drawn = draws.normal(20, 4, 200_000) if kind == "normal" else draws.lognormal(np.log(16), 0.5, 200_000)
        step = values.get("step", 1)
        nearest = values["least"] + step * np.round((drawn - values["least"]) / step)
        kept = nearest[(nearest >= values["least"]) & (nearest <= values["most"])]
        for size in (16, 20):
            assert shares[size] == pytest.approx(np.mean(kept == size), abs=0.004)
    assert word in variant.label.split()
    assert variant_key(variant) == variant_key(made(table, load__buckets=[64, 16]))
    typed = spec.keyed()["load.shapes"].overrides(variant.load.shapes)["load.shapes"]
    assert typed == {kind: {"step": 1, **values}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"load__shapes": None, "profiles": "range"}, "profiles=range: one engine serves the shapes of load.shapes"),
        ({"load__shapes": {"gamma": {"least": 1, "most": 2}}}, "gamma is no distribution; there are uniform, normal"),
        ({"load__shapes": {"normal": {"mean": 8, "least": 1, "most": 9}}}, "lacks std; give mean, std, least, most"),
        ({"load__shapes": {"uniform": {"mean": 8, "least": 1, "most": 9}}}, "has no mean; give least, most"),
        ({"load__shapes": {"uniform": {"least": 9, "most": 1}}}, "least to most has to hold 1 to 10000 sizes"),
        ({"load__shapes": {"uniform": {"least": 0, "most": 1}}}, "least is a whole number above 0"),
        ({"load__shapes": {"normal": {"mean": -1, "std": 1, "least": 1, "most": 2}}}, "mean is a number above 0"),
        ({"load__shapes": {"normal": {"mean": 9e9, "std": 1, "least": 1, "most": 2}}}, "has no size between"),
        ({"load__shapes": {64: 1}, "profiles": "each"}, "profiles=each: "),
        ({"load__shapes": {64: 1}, "profiles": "range", "profile": "range"}, "each profile has one batch size"),
        (
            {"model__name": "vit_b16", "load__shapes": [{"shape": "h:224", "share": 1}], "profiles": "range"},
            "weights of model 'vit_b16' depend on h, so no engine takes several sizes of it; profiles=per_engine",
        ),
        ({"load__buckets": [64]}, "load.buckets pads the requests of load.shapes, which is not set"),
        ({"load__shapes": {}}, "load.shapes={}: give weights by size"),
        ({"load__shapes": [{"shape": 64}]}, "give weights by size"),
        ({"load__shapes": {64: 0}}, "load.shapes: 0 is no weight of 64"),
        ({"load__shapes": {64: "x"}}, "load.shapes: x is no weight of 64"),
        ({"load__shapes": {64: 1, "64": 1}}, "load.shapes: 64 is there twice"),
        ({"load__shapes": {"x": 1}}, "load.shapes: shape=x: give each dimension a size"),
        ({"load__shapes": {64: 1}, "load__buckets": [32]}, "load.buckets: none takes 64 of load.shapes"),
        ({"load__shapes": {64: 1}, "load__buckets": 64}, "load.buckets=64: give a list of shapes"),
        ({"load__shapes": {64: 1}, "load__buckets": [64, 64]}, "a bucket is there twice"),
        ({"load__shapes": {64: 1}, "load__buckets": ["h:64+w:64"]}, "all have to name the same dimensions"),
        ({"load__shapes": dict.fromkeys(range(1, 40), 1)}, "39 shapes would need an engine each, and 32 is the most"),
        ({"load__shapes": {64: 1}, "shape": 128}, "shape=128: the requests have the shapes of load.shapes"),
        ({"load__shapes": {1000: 1}}, "seq of model 'bert_base' takes 1 to 512"),
        ({"load__shapes": {64: 1}, "model__samples": "x.npz"}, "model.samples has one; leave one out"),
        (
            {"load__shapes": {64: 1}, "load__kind": "curve", "batch": 8, "batching__max_wait_ms": 1.0},
            "batching.max_wait_ms gathers requests of one shape",
        ),
        ({"load__shapes": "none.csv"}, "load.shapes=none.csv: cannot be read"),
    ],
)
def test_what_is_no_mix_is_refused_in_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(SweepError) as caught:
        variants.from_config(config(**{"model__name": "bert_base", **values}))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_takes_sizes_as_keys(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(
        "model: bert_base\nbackend: simulated\nload:\n  shapes: {64: 0.5, 384: 0.5}\n  buckets: [64, 384]\n"
    )
    (variant,) = [variants.from_config(one) for one in sweep_file.read(tmp_path / "mix.yaml", ()).configs]
    assert variant.label.endswith("mix64:0.5+384:0.5 buckets64+384")
    (tmp_path / "mix.yaml").write_text("model: bert_base\nload:\n  64: 0.5\n")
    with pytest.raises(ConfigError, match=":3: 64: is no key"):
        sweep_file.read(tmp_path / "mix.yaml", ())
