"""argv + conf/ -> composed configs. With ``composer``, the one that knows Hydra.

Hydra composes once per choice of groups, which costs 0.1 s; swept plain values are set on the composed config
through the same typed nodes, so that a thousand variants plan in seconds.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import math
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from sweep.config import error_messages, hydra_loader
from sweep.config.conf_files import conf_folder
from sweep.config.schema import UNMEASURED, Config, help_lines
from sweep.errors import ConfigError
from sweep.system import user_code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

_MOST = 100_000  # combinations of a sweep
_HYDRAS_ERRORS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AssertionError, AttributeError),
    RecursionError,
)


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
    params: dict[str, str] | None = field(default_factory=dict)


class _Sweep:
    """Expands and composes every combination.

    Args:
        loader: Hydra's, over the YAMLs.
        config: the master config (``hydra_loader.master``).
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader = loader
        self._config = config

    def asked(self) -> Asked:
        """What was asked, by an experiment's ``hydra.sweeper.params`` and then by the words."""
        hydras: Any = OmegaConf.to_container(self._config.hydra, resolve=False)
        task = hydras["overrides"]["task"]
        words = [f"{key}={value}" for key, value in (hydras["sweeper"]["params"] or {}).items()] + task
        parser = OverridesParser.create(config_loader=self._loader)
        overrides = parser.parse_overrides(words)
        latest = {_target(override): override for override in overrides}
        for target, override in latest.items():
            _refuse_misplaced(target, override)
        composed, values = _split(list(latest.values()), self._is_group, parser)
        if math.prod([*map(len, composed), *map(len, values)]) > _MOST:
            raise ConfigError(f"{' '.join(words)}: more than {_MOST} combinations; sweep over fewer values")
        if self._has_composed(composed, parser.parse_overrides(task)):
            bases = iter((_without_hydra(self._config),))
        else:
            bases = (self._compose(groups) for groups in itertools.product(*composed))
        configs = tuple(config for base in bases for config in _configs(base, values))
        if not configs:
            raise ConfigError(f"{' '.join(words)}: sweeps over nothing")
        user_code.refuse_unnamed("graph", (config.graph for config in configs), task)
        user_code.refuse_unnamed("model.calibration", (config.model.calibration for config in configs), task)
        user_code.refuse_unnamed("model.labels", (config.model.labels for config in configs), task)
        experiments = [word for word in task if word.startswith("+experiment=")]
        typed = {target: override.input_line or "" for target, override in latest.items()}
        measured = [word for target, word in typed.items() if target.partition(".")[0] not in UNMEASURED]
        return Asked(configs=configs, words=tuple(dict.fromkeys([*experiments, *measured])))

    def _is_group(self, key: str) -> bool:
        return "/" in key or bool(self._loader.get_group_options(key))

    def _has_composed(self, composed: Sequence[Sequence[str]], task: Sequence[Override]) -> bool:
        """Tell whether the master config is the one combination that `composed` leaves; composing costs 0.1 s.

        Hydra composes the master config from the overrides that sweep nothing, and leaves out a group whose choice
        is missing, which it refuses in a combination.
        """
        fixed = [[override.input_line] for override in task if not override.is_sweep_override()]
        return composed == fixed and "???" not in self._config.hydra.runtime.choices.values()

    def _compose(self, overrides: tuple[str, ...]) -> DictConfig:
        return _without_hydra(self._loader.load_sweep_config(self._config, list(overrides)))


def _without_hydra(config: DictConfig) -> DictConfig:
    """Remove Hydra's node from a composed config, and check the rest."""
    with read_write(config), open_dict(config):
        del config["hydra"]
    hydra_loader.check_texts(config)
    return config


Choice = tuple[str, Any, str]  # key, value, as written


def _target(override: Override) -> str:
    """What an override sets, whether it is written ``key=``, ``+key=`` or ``++key=``."""
    return f"{override.key_or_group}@{override.package}" if override.package else str(override.key_or_group)


def _refuse_misplaced(target: str, override: Override) -> None:
    """What belongs to the whole sweep cannot be swept."""
    if hydra_loader.is_hydras(target):
        raise _hydras(str(override.input_line))
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
            composed.append(_swept(key, override))
        else:
            texts = _swept(key, override)
            values.append([(key, parser.parse_override(text).value(), text) for text in texts])
    return composed, values


def _swept(key: str, override: Override) -> list[str]:
    """The words of a sweep, one a value; a range may stand for more than memory holds."""
    texts = list(itertools.islice(override.sweep_string_iterator(), _MOST + 1))
    if len(texts) > _MOST:
        raise ConfigError(f"{override.input_line}: more than {_MOST} values; sweep over fewer")
    return [f"{key}={text}" for text in texts]


def is_plain_value(key: str) -> bool:
    """Whether the schema has ``key`` as a plain value, so that setting it changes nothing else."""
    return key in _schema_keys() and ".NAME." not in key


@functools.cache
def _schema_keys() -> frozenset[str]:
    return frozenset(line.split()[0] for line in help_lines())


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
        raise ConfigError(f"{text}: {error_messages.one_line(error)}") from error
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
            raise ConfigError(error_messages.unknown_key(f"{prefix}{name}"))
        if dataclasses.is_dataclass(value):
            _no_extra_keys(value, f"{prefix}{name}.")


def read(argv: Sequence[str]) -> Asked | None:
    """What was asked; None where Hydra has answered by itself (--help, --cfg).

    Raises:
        ConfigError: with one line for whatever Hydra or OmegaConf had to say.
    """
    _register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's printer
    words, flags, own = _parted([_condition(word) for word in argv])
    for word in words:
        if hydra_loader.is_hydras(word):
            raise _hydras(word)
    try:
        with hydra_loader.composing(conf_folder(), own) as loader:
            config = hydra_loader.master(loader, conf_folder(), words)
            if not flags:
                return _Sweep(loader, config).asked()
        sys.argv = [sys.argv[0], *([f"--config-dir={own}"] if own else []), *flags, *words]
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=hydra_loader.MAIN)(_nothing)()
    except MissingConfigException as error:
        raise ConfigError(error_messages.missing_choice(error)) from error
    except _HYDRAS_ERRORS as error:
        raise ConfigError(error_messages.explained(error, argv)) from error  # Hydra asserts where it could say
    return None


def _nothing(_: DictConfig) -> None:
    """What Hydra would run."""


def _hydras(word: str) -> ConfigError:
    return ConfigError(f"{word}: how Hydra runs is fixed here; commas sweep by themselves")


def _parted(argv: Sequence[str]) -> tuple[list[str], list[str], Path | None]:
    """Words, those of Hydra's flags that only show something, and the folder of ``--config-dir``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-m", "--multirun", action="store_true")  # a sweep of one is a sweep too
    parser.add_argument("--config-dir", "-cd", type=Path)
    for names in (("--help", "-h"), ("--hydra-help",), ("--resolve",)):
        parser.add_argument(*names, action="store_const", const=names[0], default=None)
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--package", "-p")
    try:
        found, words = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    unknown = next((word for word in words if word.startswith("-")), None)
    if unknown is not None:
        raise ConfigError(f"{unknown}: no such flag; there are --help, --cfg job and --config-dir FOLDER")
    if found.config_dir is not None and not found.config_dir.is_dir():
        raise ConfigError(f"--config-dir {found.config_dir}: no such folder")
    flags = [flag for flag in (found.help, found.hydra_help, found.resolve) if flag]
    flags += [f"--{name}={value}" for name in ("cfg", "package") if (value := getattr(found, name)) is not None]
    return words, flags, found.config_dir.resolve() if found.config_dir is not None else None


def _condition(word: str) -> str:
    """``only=batch=8`` as Hydra's grammar has it: ``only=batch:8``; any other word as it is."""
    key, _, value = word.partition("=")
    return f"{key}={value.replace('=', ':')}" if key in {"only", "skip"} else word


@functools.cache
def _register() -> None:
    """Schema, help text and an experiment's sweep under the names that conf/config.yaml uses."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="hydra/sweeper", name="all_at_once", node=_SweeperConfig)
    store.store(group="hydra/help", name="keys", node=_help())


def _help() -> dict[str, str]:
    keys = "\n".join(help_lines()).replace("$", "$$")
    text = f"Groups (KEY=CHOICE; files in conf/KEY/):\n$APP_CONFIG_GROUPS\nKeys [default]:\n{keys}\n"
    return {"app_name": "sweep", "header": "", "footer": "", "template": text}
