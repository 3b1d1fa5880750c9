"""argv + conf/ -> composed configs. The one module that knows Hydra.

Hydra composes once per choice of groups, which costs 0.1 s; swept plain values are set on the composed config
through the same typed nodes, so that a thousand variants plan in seconds.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import itertools
import os
import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from sweep import callables
from sweep.config import GROUPS, UNMEASURED, Config, help_lines
from sweep.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hydra.core.override_parser.types import Override
    from hydra.types import HydraContext, TaskFunction

_PLUGIN = "hydra_plugins.sweep_sweeper"  # Hydra instantiates plugins below this name only
_HELP_HEADER = """Sweeps precision x batch x streams x ... and answers with latency-at-throughput curves.

  python -m sweep -m precision=fp16,int8 batch=1,8,32        commas sweep
  python -m sweep +experiment=quickstart                     a sweep from conf/experiment/
  python -m sweep +experiment=quickstart plan=true           what it would run, and how long
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A sweep as it was asked for.

    Attributes:
        configs: one per combination, in the order asked, duplicates included.
        words: the overrides that decide what is measured, as typed or as an experiment has them.
    """

    configs: tuple[Config, ...]
    words: tuple[str, ...]


@dataclass
class _SweeperConfig:
    _target_: str = f"{_PLUGIN}.AllAtOnce"
    params: dict[str, str] | None = field(default_factory=dict)


class AllAtOnce(Sweeper):
    """A Hydra sweeper that hands over every combination at once."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before ``sweep``."""
        self._loader = hydra_context.config_loader
        self._task = task_function
        self._config = config

    def sweep(self, arguments: list[str]) -> None:
        """Expand the overrides, compose, and call the task function with an ``Asked``."""
        words = [f"{key}={value}" for key, value in self._params.items()] + list(arguments)
        parser = OverridesParser.create(config_loader=self._loader)
        overrides = parser.parse_overrides(words)
        latest = {_target(override): override for override in overrides}
        for target, override in latest.items():
            _refuse_misplaced(target, override)
        composed, values = _split(list(latest.values()), self._is_group, parser)
        configs = tuple(
            config for groups in itertools.product(*composed) for config in _configs(self._compose(groups), values)
        )
        if not configs:
            raise ConfigError(f"{' '.join(words)}: sweeps over nothing")
        callables.refuse_unnamed("graph", (config.graph for config in configs), arguments)
        callables.refuse_unnamed("model.calibration", (config.model.calibration for config in configs), arguments)
        experiments = [word for word in self._config.hydra.overrides.task if word.startswith("+experiment=")]
        typed = {target: override.input_line or "" for target, override in latest.items()}
        measured = [word for target, word in typed.items() if target.partition(".")[0] not in UNMEASURED]
        self._task(Asked(configs=configs, words=tuple(dict.fromkeys([*experiments, *measured]))))

    def _is_group(self, key: str) -> bool:
        return "/" in key or bool(self._loader.get_group_options(key))

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig:
        config = _composed(self._loader, self._config, overrides)
        with read_write(config), open_dict(config):
            del config["hydra"]
        return config


def _composed(loader: Any, master: DictConfig, overrides: tuple[str, ...]) -> DictConfig:
    config: DictConfig = loader.load_sweep_config(master, list(overrides))
    return config


Choice = tuple[str, Any, str]  # key, value, as written


def _target(override: Override) -> str:
    """What an override sets, whether it is written ``key=``, ``+key=`` or ``++key=``."""
    return f"{override.key_or_group}@{override.package}" if override.package else str(override.key_or_group)


def _refuse_misplaced(target: str, override: Override) -> None:
    """What belongs to the whole sweep cannot be swept."""
    head = target.partition("@")[0].partition(".")[0].partition("/")[0]
    if override.is_sweep_override() and head in {*UNMEASURED, "experiment"}:
        raise ConfigError(f"{override.input_line}: {head} belongs to the whole sweep; give it one value")


def _split(
    overrides: Sequence[Override], is_group: Callable[[str], bool], parser: OverridesParser
) -> tuple[list[list[str]], list[list[Choice]]]:
    """What Hydra has to compose (groups, fixed and added values), and the swept values that can be set after."""
    composed: list[list[str]] = []
    values: list[list[Choice]] = []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            composed.append([override.input_line or ""])
        elif not override.is_discrete_sweep():
            raise ConfigError(f"{override.input_line}: give the values one by one, as in {key}=1,2,4")
        elif is_group(key) or not is_plain_value(key):
            composed.append([f"{key}={text}" for text in override.sweep_string_iterator()])
        else:
            texts = [f"{key}={text}" for text in override.sweep_string_iterator()]
            values.append([(key, parser.parse_override(text).value(), text) for text in texts])
    return composed, values


def is_plain_value(key: str) -> bool:
    """Whether the schema has ``key`` as a plain value, so that setting it changes nothing else."""
    return key in {line.split()[0] for line in help_lines()} and ".NAME." not in key


def _configs(composed: DictConfig, values: list[list[Choice]]) -> list[Config]:
    """Every combination of the swept values on one composed config.

    Each value goes once through the config's typed node; a copy of the whole config costs 50 ms. Where values
    are made of others (``${...}``) each combination is resolved by itself.
    """
    made: Config = OmegaConf.to_object(composed)  # type: ignore[assignment]  # the schema is its root
    _no_extra_keys(made)
    written = [str(choice[1]) for choices in values for choice in choices]
    if any("${" in text for text in (OmegaConf.to_yaml(composed), *written)):
        return [_resolved(copy.deepcopy(composed), chosen) for chosen in itertools.product(*values)]
    checked = [[(choice[0], _through(composed, choice)) for choice in choices] for choices in values]
    return [_replaced(made, dict(chosen)) for chosen in itertools.product(*checked)]


def _resolved(config: DictConfig, chosen: tuple[Choice, ...]) -> Config:
    for choice in sorted(chosen, key=lambda item: "${" in str(item[1])):  # what they refer to comes first
        _through(config, choice)
    return OmegaConf.to_object(config)  # type: ignore[return-value]  # the schema is its root


def _through(config: DictConfig, choice: Choice) -> Any:
    """Set the value on the config's node, which converts and checks it; what became of it."""
    key, value, text = choice
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{text}: {one_line(error)}") from error
    kept = OmegaConf.select(config, key)
    return OmegaConf.to_object(kept) if OmegaConf.is_config(kept) else kept


def _replaced(config: Any, values: dict[str, Any]) -> Any:
    """The dataclass with the values at their dotted keys."""
    for key, value in values.items():
        head, _, rest = key.partition(".")
        inner = _replaced(getattr(config, head), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: inner})
    return config


def _no_extra_keys(config: Any, prefix: str = "") -> None:
    """``+batchh=3`` slips past Hydra's own check."""
    known = {item.name for item in dataclasses.fields(config)}
    for name, value in vars(config).items():
        if name not in known:
            raise ConfigError(_unknown_key(f"{prefix}{name}"))
        if dataclasses.is_dataclass(value):
            _no_extra_keys(value, f"{prefix}{name}.")


def read(argv: Sequence[str]) -> Asked | None:
    """What was asked; None where Hydra has answered by itself (--help, --cfg).

    Raises:
        ConfigError: with one line for whatever Hydra or OmegaConf had to say.
    """
    _register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's printer
    words = [_condition(word) for word in argv if word not in {"-m", "--multirun"}]  # a sweep of one is a sweep too
    for word in words:
        if word.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise ConfigError(f"{word}: how Hydra runs is fixed here; commas sweep by themselves")
    flags = any(word.startswith("-") for word in words)  # --help, --cfg and their kind go alone
    sys.argv = [sys.argv[0], *([] if flags else ["--multirun"]), *words]
    asked: list[Asked] = []
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(asked.append)()
    except MissingConfigException as error:
        raise ConfigError(_missing_choice(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError, AttributeError) as error:
        raise ConfigError(_explained(error, argv)) from error  # Hydra asserts where it could say
    return asked[0] if asked else None


def _condition(word: str) -> str:
    """``only=batch=8`` as Hydra's grammar has it: ``only=batch:8``; any other word as it is."""
    key, _, value = word.partition("=")
    return f"{key}={value.replace('=', ':')}" if key in {"only", "skip"} else word


def conf_folder() -> Path:
    """conf/ beside the package in a checkout, or the copy inside an installed wheel."""
    package = Path(__file__).resolve().parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").exists() else package / "_conf"


def _register() -> None:
    """Schema, help text and sweeper under the names that conf/config.yaml uses."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="hydra/sweeper", name="all_at_once", node=_SweeperConfig)
    store.store(group="hydra/help", name="keys", node=_help())
    plugins = Plugins.instance()
    AllAtOnce.__module__ = _PLUGIN
    module = types.ModuleType(_PLUGIN)
    module.AllAtOnce = AllAtOnce  # type: ignore[attr-defined]
    sys.modules.setdefault("hydra_plugins", types.ModuleType("hydra_plugins"))
    sys.modules[_PLUGIN] = module
    plugins.register(AllAtOnce)


def _help() -> dict[str, str]:
    keys = "\n".join(help_lines()).replace("$", "$$")
    text = f"{_HELP_HEADER}\nGroups (KEY=CHOICE; files in conf/KEY/):\n$APP_CONFIG_GROUPS\nKeys [default]:\n{keys}\n"
    return {"app_name": "sweep", "header": "", "footer": "", "template": text}


def one_line(error: BaseException) -> str:
    """The first line of a message that carries more."""
    return str(error).strip().splitlines()[0].strip() if str(error).strip() else type(error).__name__


def _explained(error: Exception, argv: Sequence[str]) -> str:
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({' '.join(str(error).splitlines()[1:2])})"
    cause = error.__cause__ or error
    text = f"{error}\n{cause}"
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' not in|Key '([^']+)' is not in struct", text)
    if unknown:
        full = re.search(r"full_key: (\S+)", text)
        return _unknown_key(full.group(1) if full else next(name for name in unknown.groups() if name))
    asked = re.search(r"Error merging override ([^=\s]+)", str(error))
    key = asked.group(1).lstrip("+") if asked else None
    word = next((item for item in argv if key and item.lstrip("+").startswith(f"{key}=")), asked and asked.group(1))
    return f"{word}: {one_line(cause)}" if word else f"{' '.join(argv)}: {one_line(cause)}"


def _unknown_key(key: str) -> str:
    if key == "experiment":
        return "experiment: put a + before it, as in +experiment=quickstart"
    known = [*GROUPS, *(line.split()[0] for line in help_lines())]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "`python -m sweep --help` lists the keys"
    return f"{key}: no such key; {hint}"


def _missing_choice(error: MissingConfigException) -> str:
    missing = error.missing_cfg_file or ""
    group, _, choice = missing.rpartition("/")
    options = ", ".join(error.options or ())
    if not group:
        return one_line(error)
    return f"{group}={choice}: no such {group}; there are: {options}"
