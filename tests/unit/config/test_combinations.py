"""Every combination of swept values is one config, in order, and what does not vary is one object in all of them."""

import dataclasses
import itertools

import pytest

from sweep.config import compose
from sweep.config.combinations import Combinations, Grid, Listed, Value, replace
from sweep.config.schema import Config

VALUES = {
    "load.depth": [1, 2],
    "batch": [1, 8, 32],
    "backend.timing_cache": [None, "t"],
    "load.min_s": [0.5, 1.0],
}


def grid(values=VALUES, finish=None):
    options = [[Value(key, value) for value in each] for key, each in values.items()]
    return Grid(Config(), options, finish or {})


def test_a_grid_is_the_product_of_its_values_in_order() -> None:
    expected = [replace(Config(), dict(zip(VALUES, each, strict=True))) for each in itertools.product(*VALUES.values())]
    made = grid()
    assert (len(made), list(made)) == (24, expected)
    assert [made[number] for number in range(24)] == expected
    assert made[-1] == expected[-1]
    with pytest.raises(IndexError):
        made[24]


def test_configs_share_each_section_that_is_the_same_in_both() -> None:
    made = list(grid())
    assert len({id(config.load) for config in made}) == 4
    assert len({id(config.backend) for config in made}) == 2
    assert len({id(config.precision) for config in made}) == 1
    assert [section.depth for section in grid().distinct("load")] == [1, 1, 2, 2]
    assert list(grid().distinct("batch")) == [1, 8, 32]
    assert list(grid().distinct("seed")) == [Config().seed]


def test_a_section_is_finished_once_its_values_are_set() -> None:
    def rename(model):
        return model if model.engine is None else dataclasses.replace(model, name="")

    made = grid({"model.engine": [None, "a.plan"], "batch": [1, 2]}, {"model": rename})
    assert [config.model.name for config in made] == ["tiny_cnn", "tiny_cnn", "", ""]


def test_a_grid_over_no_value_has_no_config() -> None:
    made = grid({"batch": [], "seed": [1]})
    assert (len(made), list(made), list(made.distinct("batch"))) == (0, [], [])


def test_parts_follow_one_another() -> None:
    listed = Listed([replace(Config(), {"batch": 64})])
    both = Combinations([grid({"batch": [1, 2]}), listed])
    assert [config.batch for config in both] == [1, 2, 64]
    assert [both[0].batch, both[2].batch, both[-1].batch, both[-3].batch] == [1, 64, 64, 1]
    assert list(both.distinct("batch")) == [1, 2, 64]
    with pytest.raises(IndexError):
        both[3]


def test_choices_of_groups_are_those_that_hydra_composes_together() -> None:
    """Each is composed once by itself, so that a sweep of groups costs their sum and not their product."""
    request = compose.read(["model=mlp,digits", "load.depth=3,4", "precision=int8,fp16", "load=closed,curve"])
    one = compose.read(["model=digits", "load.depth=4", "precision=fp16", "load=closed"])
    assert request is not None
    assert one is not None
    assert len(request.configs) == 16
    picked = [(it.model.name, it.precision.dtype, it.load.kind, it.load.depth) for it in request.configs]
    assert picked == list(itertools.product(("mlp", "digits"), ("int8", "fp16"), ("closed", "curve"), (3, 4)))
    assert request.configs[picked.index(("digits", "fp16", "closed", 4))] == one.configs[0]


def test_a_choice_that_sets_another_section_is_composed_with_each_choice_of_that(tmp_path) -> None:
    """By itself it seems to set nothing else: the network is the default one."""
    (tmp_path / "precision").mkdir()
    text = "# @package _global_\nprecision:\n  dtype: fp16\n  name: own\nmodel:\n  name: tiny_cnn\n"
    (tmp_path / "precision" / "own.yaml").write_text(text)
    request = compose.read([f"--config-dir={tmp_path}", "precision=fp32,own", "model=tiny_cnn,mlp"])
    assert request is not None
    assert [(it.precision.name, it.model.name) for it in request.configs] == [
        ("fp32", "tiny_cnn"),
        ("fp32", "mlp"),
        ("own", "tiny_cnn"),
        ("own", "tiny_cnn"),
    ]
