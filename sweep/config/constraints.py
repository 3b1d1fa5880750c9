"""Leave combinations out: ``where`` keeps those for which an expression holds, ``exclude`` drops those of a list."""

from __future__ import annotations

import ast
import itertools
import operator
from typing import TYPE_CHECKING, Any

from sweep.config import error_messages
from sweep.config.combinations import Combinations, Listed
from sweep.config.conf_files import choices
from sweep.errors import ConfigError, shorten
from sweep.spec import plain_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sweep.config.schema import Config

HEADS = {"model": "name", "precision": "name", "backend": "name", "load": "kind"}  # what the name of a group stands for
_MAX_NODES = 200  # of an expression
_EXAMPLE = "as in `batch * streams <= 64`"
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}


class _UnknownNameError(ConfigError):
    """Report a name in an expression that is no key."""


def value_of(config: Config, key: str) -> Any:
    """Return the value of a key, or of the head of a group, such as the name of the model.

    Raises:
        ConfigError: there is no such key.
    """
    path = f"{key}.{HEADS[key]}" if key in HEADS else key
    try:
        return operator.attrgetter(path)(config)
    except AttributeError:
        raise ConfigError(error_messages.unknown_key(key)) from None


def conditions(value: Any) -> list[str]:
    """Return the expressions of ``where``: a text or a list of texts; none for null.

    Raises:
        ConfigError: it is neither.
    """
    items = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"where: {shorten(str(value), 60)} is no expression, {_EXAMPLE}, and no list of them")
    return items


def holds(condition: str, config: Config) -> bool:
    """Tell whether an expression over the keys of a combination is true.

    It has numbers, texts, lists, keys, ``+ - * / // %``, comparisons, ``in``, ``and``, ``or``, ``not``; nothing is
    called.

    Raises:
        ConfigError: it cannot be read, names no key, or compares what cannot be compared.
    """
    try:
        tree = ast.parse(" ".join(condition.splitlines()).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"where: {shorten(condition, 80)}: cannot be read; write an expression, {_EXAMPLE}"
        ) from error
    if sum(1 for _ in ast.walk(tree)) > _MAX_NODES:
        raise ConfigError(f"where: {shorten(condition, 80)}: too long; write several expressions as a list")
    try:
        return bool(_value(tree.body, config))
    except (TypeError, ArithmeticError) as error:
        raise ConfigError(f"where: {shorten(condition, 80)}: {error}") from error
    except _UnknownNameError as error:
        quoted = f"a text has quotes, as in '{error}'"
        raise ConfigError(
            f"where: {shorten(condition, 80)}: {error_messages.unknown_key(str(error))}; {quoted}"
        ) from error


def _value(node: ast.AST, config: Config) -> Any:  # noqa: C901, PLR0911 - one case for each kind of node
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None):
            return node.value
        case ast.Name() | ast.Attribute():
            text = ast.unparse(node)
            if text in {"null", "true", "false"}:
                return {"null": None, "true": True, "false": False}[text]
            try:
                return value_of(config, text)
            except ConfigError as error:
                raise _UnknownNameError(text) from error
        case ast.List() | ast.Tuple():
            return [_value(item, config) for item in node.elts]
        case ast.BinOp() if type(node.op) in _BINARY:
            left, right = _value(node.left, config), _value(node.right, config)
            if isinstance(left, str | list) or isinstance(right, str | list):
                raise TypeError(f"{plain_text(left)} and {plain_text(right)} are no two numbers")
            return _BINARY[type(node.op)](left, right)
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, config)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, config)
        case ast.BoolOp():
            values = (_value(item, config) for item in node.values)
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.Compare():
            operands = [_value(item, config) for item in (node.left, *node.comparators)]
            pairs = zip(node.ops, operands, operands[1:], strict=False)
            return all(_COMPARE[type(op)](left, right) for op, left, right in pairs if type(op) in _COMPARE)
    raise ConfigError(
        f"where: {ast.unparse(node)}: only numbers, texts, keys, arithmetic and comparisons may stand here"
    )


def is_excluded(entry: Mapping[str, Any], config: Config) -> bool:
    """Tell whether a combination has the value that an entry of ``exclude`` gives for each of its keys.

    A list stands for any of its values.
    """
    return all(
        plain_text(value_of(config, key))
        in {plain_text(item) for item in (value if isinstance(value, list) else [value])}
        for key, value in entry.items()
    )


def check_entry(entry: Mapping[str, Any], configs: Combinations) -> None:
    """Refuse an entry of ``exclude`` with a value that its key cannot have, which would leave nothing out.

    Raises:
        ConfigError: a group has no such choice, or a number is no number.
    """
    for key, value in entry.items():
        kinds = {type(value_of(config, key)) for config in itertools.islice(configs, 1)}
        for item in value if isinstance(value, list) else [value]:
            if key in HEADS:
                names = dict.fromkeys([*choices(key), *(str(value_of(config, key)) for config in configs)])
                if plain_text(item) not in names:
                    raise ConfigError(f"{key}={plain_text(item)}: no such {key}; there are: {', '.join(sorted(names))}")
            elif kinds & {int, float} and (isinstance(item, bool) or not isinstance(item, int | float)):
                raise ConfigError(f"{key}={plain_text(item)}: `exclude` has it, and it is no number")


def entries(name: str, value: Any) -> list[dict[str, Any]]:
    """Return the entries of ``exclude`` or ``include``, a list of tables; none for null.

    Raises:
        ConfigError: it is no such list.
    """
    items = [] if value is None else value
    if not isinstance(items, list) or not all(isinstance(item, dict) and item for item in items):
        raise ConfigError(f"{name}: give a list of combinations, as in [{{precision: int8, batch: 1}}]")
    return [flat(item) for item in items]


def flat(table: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table with its inner tables as dotted keys."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        values |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return values


def keep(configs: Combinations, where: Sequence[str], exclude: Sequence[Mapping[str, Any]]) -> Combinations:
    """Return the combinations that meet every expression of `where` and are none of `exclude`.

    Raises:
        ConfigError: as `holds`, or nothing is left.
    """
    if not where and not exclude:
        return configs
    for entry in exclude:
        check_entry(entry, configs)
    kept = Listed(
        [
            config
            for config in configs
            if all(holds(condition, config) for condition in where)
            and not any(is_excluded(entry, config) for entry in exclude)
        ]
    )
    if len(configs) and not len(kept):
        words = [*(f"where: {condition}" for condition in where), *(["exclude"] if exclude else [])]
        raise ConfigError(f"{'; '.join(words)}: leaves none of {len(configs)} combinations")
    return Combinations([kept])
