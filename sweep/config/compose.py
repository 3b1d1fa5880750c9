"""Compose argv and conf/ into configs. Only this module and `hydra_loader` use Hydra.

Hydra takes 0.1 s to compose one choice of groups. Swept plain values are therefore set afterwards, on the composed
config, through the same typed nodes: a plan of a thousand variants takes seconds.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
import os
import re
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from sweep.config import arguments, constraints, error_messages, hydra_loader
from sweep.config.combinations import Combinations, Grid, Listed, Value, finished, replace
from sweep.config.conf_files import conf_folder
from sweep.config.schema import GROUPS, UNMEASURED, Config, help_lines, list_keys
from sweep.config.value_text import value_text
from sweep.errors import ConfigError
from sweep.system import user_code

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

    from sweep.config.combinations import Finish
    from sweep.config.schema import ModelConfig

_MAX_COMBINATIONS = 100_000
_PLAN_KEY = "model.engine"
_TOGETHER = "together"
_REFERENCE = "${"  # to another value
_MODEL_KEYS = ("model", "model.name", "model.path", "model.torch", "model.saved_model")
_HYDRA_ERRORS = (  # Hydra does not convert every error on bad input to one of its own
    *(HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AssertionError, AttributeError),
    *(RecursionError, OSError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Hold the sweep that a command line requests.

    Attributes:
        configs: one per combination, in the order of the request, duplicates included; made when they are read.
        overrides: those that decide what is measured, as typed or as an experiment has them.
        left_out: number of combinations that ``where`` and ``exclude`` leave out.
        locate: message of an error -> the same with file and line, where a file has what it is about.
    """

    configs: Combinations
    overrides: tuple[str, ...]
    left_out: int = 0
    locate: Callable[[str], str] = str


@dataclass
class _SweeperConfig:
    params: dict[str, str] | None = field(default_factory=dict)


class _Composer:
    """Compose every combination of the swept values.

    Args:
        loader: Hydra's, over the YAML files.
        config: the master config (`hydra_loader.compose_master`).
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader = loader
        self._config = config

    def request(self, typed_words: Sequence[str], where: Sequence[str]) -> SweepRequest:
        """Return the sweep of an experiment's ``sweep`` or ``hydra.sweeper.params`` and the overrides, which win.

        Args:
            typed_words: the overrides that the command line itself has, without those of a file.
            where: expressions of the command line that a combination has to meet.
        """
        node: Any = OmegaConf.to_container(self._config.hydra, resolve=False)
        task = node["overrides"]["task"]
        texts = [f"{key}={value}" for key, value in (node["sweeper"]["params"] or {}).items()]
        texts += [*self._swept_by_a_file(), *task]
        parser = OverridesParser.create(config_loader=self._loader)
        latest = {_target(override): override for override in parser.parse_overrides(texts)}
        for target, override in latest.items():
            _refuse_misplaced(target, override)
        names_model = self._names_model(latest)
        composed, values = _split(list(latest.values()), self._is_group, parser)
        if math.prod([*map(len, composed), *map(len, values)]) > _MAX_COMBINATIONS:
            raise ConfigError(f"{' '.join(texts)}: more than {_MAX_COMBINATIONS} combinations; sweep over fewer values")
        finish = {} if names_model else {"model": _without_model}
        grid = self._compose_apart(composed, values, finish, parser)
        if grid is not None:
            every = Combinations([grid])
        else:
            if self._is_master(composed, parser.parse_overrides(task)):
                bases = iter((_without_hydra(self._config),))
            else:
                bases = (self._compose(groups) for groups in itertools.product(*composed))
            every = Combinations([_combine(base, values, finish) for base in bases])
        if not len(every):
            raise ConfigError(f"{' '.join(texts)}: sweeps over nothing")
        configs = constraints.keep(
            every,
            [*constraints.conditions(self._plain("where")), *where],
            constraints.entries("exclude", self._plain("exclude")),
        )
        _refuse_unnamed_code(configs, typed_words)
        typed = {_target(override): override for override in parser.parse_overrides(list(typed_words))}
        _refuse_unnamed_plans(configs, typed.get(_PLAN_KEY), parser)
        return SweepRequest(
            configs=configs, overrides=_measured_overrides(latest, task), left_out=len(every) - len(configs)
        )

    def _plain(self, key: str) -> Any:
        value = self._config.get(key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def _swept_by_a_file(self) -> list[str]:
        """Return the lists of an experiment's ``sweep`` as overrides."""
        swept = self._plain("sweep")
        if swept is not None and not isinstance(swept, dict):
            raise ConfigError("sweep: give a table of lists, as in {precision: [fp16, int8], batch: [1, 8]}")
        return [
            f"{key}={','.join(value_text(item) for item in (value if isinstance(value, list) else [value]))}"
            for key, value in constraints.flat(swept or {}).items()
        ]

    def _is_group(self, key: str) -> bool:
        return "/" in key or bool(self._loader.get_group_options(key))

    def _names_model(self, targets: Collection[str]) -> bool:
        """Tell whether the command line or a YAML names a network, so that it is more than the default of conf/."""
        model, default = self._config.model, Config().model
        chosen = self._config.hydra.runtime.choices.get("model") != default.name or model.name != default.name
        return chosen or model.path is not None or any(key in targets for key in _MODEL_KEYS)

    def _is_master(self, composed: Sequence[Sequence[str]], task: Sequence[Override]) -> bool:
        """Tell whether the master config is the one combination that `composed` leaves; composing costs 0.1 s.

        Hydra composes the master config from the overrides that sweep nothing, and leaves out a group whose choice
        is missing, which it refuses in a combination.
        """
        fixed = [[override.input_line] for override in task if not override.is_sweep_override()]
        return composed == fixed and "???" not in self._config.hydra.runtime.choices.values()

    def _compose_apart(
        self,
        composed: Sequence[Sequence[str]],
        values: Sequence[Sequence[_Assignment]],
        finish: Finish,
        parser: OverridesParser,
    ) -> Grid | None:
        """Compose each choice of a swept group once, rather than each combination of choices, which costs 0.1 s.

        Returns:
            The combinations of the choices and of `values`; None if no group is swept, or if what one choice sets may
            depend on another.
        """
        heads = [self._section_set_alone(texts, parser) if len(texts) > 1 else "" for texts in composed]
        swept = [head for head in heads if head != ""]
        if not swept or None in swept or len(set(swept)) < len(swept) or not all(composed):
            return None
        first = tuple(texts[0] for texts in composed)
        base = self._compose(first)
        choices: list[list[Value]] = []
        trees = {head: [base] for head in heads if head}
        for number, (head, texts) in enumerate(zip(heads, composed, strict=True)):
            if head:
                trees[head] += [self._compose((*first[:number], text, *first[number + 1 :])) for text in texts[1:]]
        if any(hydra_loader.has_interpolations(tree) for each in trees.values() for tree in each):
            return None
        config = _checked_object(base)
        for head, each in trees.items():
            objects = [config, *map(_checked_object, each[1:])]
            if any(replace(item, {head: getattr(config, head)}) != config for item in objects):
                return None
            choices.append([Value(head, getattr(item, head)) for item in objects])
        converted = []
        for assignments in values:
            if any(_REFERENCE in str(item.value) for item in assignments):
                return None
            head = assignments[0].key.partition(".")[0] if assignments else ""
            typed, *others = [
                [Value(it.key, _assign(tree, it)) for it in assignments] for tree in trees.get(head, [base])
            ]
            if any(repr(other) != repr(typed) for other in others):
                return None
            converted.append(typed)
        return Grid(config, [*choices, *converted], finish)

    def _section_set_alone(self, texts: Sequence[str], parser: OverridesParser) -> str | None:
        """Return the section at the top of the config that the overrides `texts` of one key set, and nothing else.

        Returns:
            None if they may set others too, as a YAML with defaults or a package of its own does.
        """
        overrides = parser.parse_overrides(list(texts))
        key = overrides[0].get_key_element()
        if not self._is_group(key):
            return key.lstrip("+~").partition(".")[0]
        if "/" in key or "@" in key or not all(isinstance(override.value(), str) for override in overrides):
            return None
        for override in overrides:
            found = cast("Any", self._loader).repository.load_config(f"{key}/{override.value()}")
            if found is None or found.defaults_list or (found.header or {}).get("package") not in {None, "_group_"}:
                return None
        return key

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig:
        return _without_hydra(self._loader.load_sweep_config(self._config, list(overrides)))


def _without_hydra(config: DictConfig) -> DictConfig:
    """Remove Hydra's node from a composed config, and check the rest."""
    with read_write(config), open_dict(config):
        del config["hydra"]
    hydra_loader.check_interpolations(config)
    return config


def _refuse_unnamed_code(configs: Combinations, task: Sequence[str]) -> None:
    """Refuse a user's functions that a YAML alone names: a file from elsewhere must not choose what is imported."""
    user_code.refuse_unnamed("graph", configs.distinct("graph"), task)
    user_code.refuse_unnamed("model.torch", (model.torch for model in configs.distinct("model")), task)
    user_code.refuse_unnamed("model.calibration", (model.calibration for model in configs.distinct("model")), task)
    user_code.refuse_unnamed("model.labels", (model.labels for model in configs.distinct("model")), task)


def _refuse_unnamed_plans(configs: Combinations, typed: Override | None, parser: OverridesParser) -> None:
    """Refuse a plan that a YAML alone names: a library that loads a plan runs code of it."""
    if typed is None:
        names = set()
    elif typed.is_sweep_override():
        names = {str(parser.parse_override(text).value()) for text in _expand(_PLAN_KEY, typed)}
    else:
        names = {str(typed.value())}
    for plan in dict.fromkeys(model.engine for model in configs.distinct("model")):
        if plan is not None and plan not in names:
            raise ConfigError(
                f"{_PLAN_KEY}={plan} stands in a YAML, and a plan can run code when it is loaded: type "
                f"{_PLAN_KEY}={plan} on the command line if you trust who built it"
            )


def _without_model(model: ModelConfig) -> ModelConfig:
    """Return `model` without the network of conf/'s defaults if a plan is timed: it is no reference of the plan."""
    return model if model.engine is None else cast("ModelConfig", replace(model, {"name": ""}))


def _measured_overrides(latest: dict[str, Override], task: Sequence[str]) -> tuple[str, ...]:
    """Return the experiments of `task` and the overrides that decide what is measured, each once."""
    experiments = [text for text in task if text.startswith("+experiment=")]
    measured = [
        override.input_line or "" for target, override in latest.items() if target.partition(".")[0] not in UNMEASURED
    ]
    return tuple(dict.fromkeys([*experiments, *measured]))


class _Assignment(NamedTuple):
    """Hold one value of a swept key: the key, the parsed value, and ``key=value`` as written."""

    key: str
    value: Any
    text: str


def _target(override: Override) -> str:
    """Return the key that an override sets, whether it is written ``key=``, ``+key=`` or ``++key=``."""
    return f"{override.key_or_group}@{override.package}" if override.package else str(override.key_or_group)


def _refuse_misplaced(target: str, override: Override) -> None:
    """Refuse an override of Hydra's own keys, and several values of a key that belongs to the whole sweep."""
    if hydra_loader.is_hydra_key(target):
        raise _hydra_key_error(str(override.input_line))
    head = target.partition("@")[0].partition(".")[0].partition("/")[0]
    if override.is_sweep_override() and head in {*UNMEASURED, "experiment"}:
        raise ConfigError(f"{override.input_line}: {head} belongs to the whole sweep; give it one value")


def _split(
    overrides: Sequence[Override], is_group: Callable[[str], bool], parser: OverridesParser
) -> tuple[list[list[str]], list[list[_Assignment]]]:
    """Split overrides into those that Hydra has to compose and the swept plain values, which are set afterwards.

    Returns:
        For each override of a group, a fixed or an added value: its values as ``key=value``; for each other swept
        key: its values.
    """
    composed: list[list[str]] = []
    values: list[list[_Assignment]] = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            composed.append([override.input_line or ""])
        elif not override.is_discrete_sweep():
            raise ConfigError(f"{override.input_line}: give the values one by one, as in {key}=1,2,4")
        elif is_group(key) or not is_plain_value(key):
            composed.append(_expand(key, override))
        else:
            texts = _expand(key, override)
            values.append([_Assignment(key, parser.parse_override(text).value(), text) for text in texts])
    return composed, values


def _expand(key: str, override: Override) -> list[str]:
    """Return ``key=value`` for each value of a sweep; bounded, as a range may stand for more than memory holds."""
    texts = list(itertools.islice(override.sweep_string_iterator(), _MAX_COMBINATIONS + 1))
    if len(texts) > _MAX_COMBINATIONS:
        raise ConfigError(f"{override.input_line}: more than {_MAX_COMBINATIONS} values; sweep over fewer")
    return [f"{key}={text}" for text in texts]


def is_plain_value(key: str) -> bool:
    """Tell whether `key` is a plain value of the schema, so that setting it changes nothing else."""
    return key in _schema_keys() and ".NAME." not in key


@functools.cache
def _schema_keys() -> frozenset[str]:
    return frozenset(line.split()[0] for line in help_lines())


def _combine(composed: DictConfig, values: list[list[_Assignment]], finish: Finish) -> Grid | Listed:
    """Return every combination of the swept values on one composed config.

    Each value is converted once by the config's typed node, because a copy of the whole config costs 50 ms. Where
    values refer to others (``${...}``), each combination is resolved by itself.
    """
    base = _checked_object(composed)
    texts = [str(assignment.value) for assignments in values for assignment in assignments]
    if hydra_loader.has_interpolations(composed) or any(_REFERENCE in text for text in texts):
        configs = [_resolve(copy.deepcopy(composed), combination) for combination in itertools.product(*values)]
        return Listed([finished(config, finish) for config in configs])
    converted = [[Value(item.key, _assign(composed, item)) for item in assignments] for assignments in values]
    return Grid(base, converted, finish)


def _checked_object(composed: DictConfig) -> Config:
    """Return a composed config as the dataclasses of the schema; refuses a key that the schema lacks."""
    config: Config = OmegaConf.to_object(composed)  # type: ignore[assignment]  # the schema is its root
    _refuse_extra_keys(config)
    return config


def _resolve(config: DictConfig, combination: tuple[_Assignment, ...]) -> Config:
    # Values that refer to others are set last, when those others are there.
    for assignment in sorted(combination, key=lambda item: _REFERENCE in str(item.value)):
        _assign(config, assignment)
    return OmegaConf.to_object(config)  # type: ignore[return-value]  # the schema is its root


def _assign(config: DictConfig, assignment: _Assignment) -> Any:
    """Set a value on the config's node, which checks and converts it; return the converted value."""
    try:
        OmegaConf.update(config, assignment.key, assignment.value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{assignment.text}: {error_messages.one_line(error)}") from error
    value = OmegaConf.select(config, assignment.key)
    return OmegaConf.to_object(value) if OmegaConf.is_config(value) else value


def _refuse_extra_keys(config: Any, prefix: str = "") -> None:
    """Refuse a key that the schema lacks: ``+batchh=3`` passes Hydra's own check."""
    names = {item.name for item in dataclasses.fields(config)}
    for name, value in vars(config).items():
        if name not in names:
            raise ConfigError(error_messages.unknown_key(f"{prefix}{name}"))
        if dataclasses.is_dataclass(value):
            _refuse_extra_keys(value, f"{prefix}{name}.")


def is_known(key: str) -> bool:
    """Tell whether the schema has a key, or a group has this name."""
    return key in GROUPS or key in _schema_keys()


def takes_list(key: str) -> bool:
    """Tell whether the value of a key is, or may be, a list."""
    return key in list_keys()


def _refuse_list(override: str) -> None:
    """Refuse a list where one value belongs: Hydra would take the last choice of a group, and say nothing."""
    match = re.fullmatch(r"\+{0,2}([\w.]+)=\[(.*)\]", override, flags=re.DOTALL)
    if match is not None and (match[1] in GROUPS or match[1] in _schema_keys()) and not takes_list(match[1]):
        right = f"{match[1]}={match[2].replace(' ', '')}"
        raise ConfigError(f"{override}: {match[1]} takes one value, no list; to sweep over them, write {right}")


def read(argv: Sequence[str], of_file: Sequence[str] = ()) -> SweepRequest | None:
    """Return the sweep that `argv` requests; None if Hydra has printed something instead (--help, --cfg).

    Args:
        argv: words of the command line.
        of_file: overrides that stand in a file of the user's; those of `argv` win over them.

    Raises:
        ConfigError: an override or a YAML is refused, by this package, Hydra or OmegaConf; one line.
    """
    parsed = arguments.parse(argv)
    typed = [word for word in parsed.overrides if key_of(word) == _TOGETHER]
    if parsed.flags or not (typed or any(key_of(word) == _TOGETHER for word in of_file)):
        return _read(argv, of_file)
    others = [word for word in argv if word not in _overrides_of(argv)]
    requests = [_read([*others, *words], file_words) for words, file_words in _blocks(parsed.overrides, of_file)]
    every = [request for request in requests if request is not None]
    names = (word for word in (*of_file, *parsed.overrides) if key_of(word).partition(".")[0] not in UNMEASURED)
    return SweepRequest(
        configs=Combinations([request.configs for request in every]),
        overrides=tuple(dict.fromkeys(names)),
        left_out=sum(request.left_out for request in every),
    )


def _overrides_of(argv: Sequence[str]) -> set[str]:
    """Return the words of a command line that are overrides, as they are typed."""
    return {word for word in argv if re.match(r"[+~]{0,2}[\w./@]+=", word) and not word.startswith("where=")}


def _blocks(typed: Sequence[str], of_file: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    from sweep.config import side_by_side

    try:
        return list(side_by_side.blocks(typed, of_file))
    except _HYDRA_ERRORS as error:
        raise ConfigError(error_messages.explain(error, [*of_file, *typed])) from error


def _read(argv: Sequence[str], of_file: Sequence[str]) -> SweepRequest | None:
    _register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them and exiting
    parsed = arguments.parse(argv)
    typed_keys = {key_of(override) for override in parsed.overrides}
    overrides = [*(text for text in of_file if key_of(text) not in typed_keys), *parsed.overrides]
    overrides = [_of_pipeline(text) for text in overrides]
    for override in overrides:
        if hydra_loader.is_hydra_key(override):
            raise _hydra_key_error(override)
        _refuse_list(override)
    try:
        with _without_warnings(), hydra_loader.open_loader(conf_folder(), parsed.config_dir) as loader:
            config = hydra_loader.compose_master(loader, conf_folder(), overrides)
            if not parsed.flags:
                return _Composer(loader, config).request(parsed.overrides, parsed.where)
        folder = () if parsed.config_dir is None else (f"--config-dir={parsed.config_dir}",)
        sys.argv = [sys.argv[0], *folder, *parsed.flags, *overrides]
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=hydra_loader.MAIN)(_run_nothing)()
    except MissingConfigException as error:
        raise ConfigError(error_messages.missing_choice(error)) from error
    except _HYDRA_ERRORS as error:
        raise ConfigError(error_messages.explain(error, [*of_file, *argv])) from error
    return None


def _of_pipeline(override: str) -> str:
    """Return an override of `pipeline` with the key that its value belongs to; any other as it is.

    A name or a file sets ``pipeline.name``, and a list ``pipeline.stages``. The names of stages are the user's own, so
    that each of these keys may be new.
    """
    match = re.fullmatch(r"\+{0,2}(pipeline(?:\.[\w.]+)?)=(.*)", override, flags=re.DOTALL)
    if match is None:
        return override
    key, value = match[1], match[2]
    if key == "pipeline" and not value.startswith("{"):
        key = "pipeline.stages" if value.startswith("[") else "pipeline.name"
    return f"++{key}={value}"


def key_of(override: str) -> str:
    """Return the key of an override, without the marks in front of it."""
    return override.lstrip("+~").partition("=")[0]


def _without_warnings() -> warnings.catch_warnings[None]:
    """Leave out Hydra's warnings about the names of YAML files, which are several lines long."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)


def _run_nothing(_: DictConfig) -> None:
    """Serve as the program that Hydra would run; the flags that lead here only print."""


def _hydra_key_error(override: str) -> ConfigError:
    return ConfigError(f"{override}: how Hydra runs is fixed here; commas sweep by themselves")


@functools.cache
def _register() -> None:
    """Register the schema, the help text and an experiment's sweep under the names that conf/config.yaml uses."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="hydra/sweeper", name="all_at_once", node=_SweeperConfig)
    store.store(group="hydra/help", name="keys", node=_help())


def _help() -> dict[str, str]:
    keys = "\n".join(help_lines()).replace("$", "$$")
    text = f"Groups (KEY=CHOICE; files in conf/KEY/):\n$APP_CONFIG_GROUPS\nKeys [default]:\n{keys}\n"
    return {"app_name": "sweep", "header": "", "footer": "", "template": text}
