"""Make the shapes of the requests from `load.shapes` and `load.buckets`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep import models
from sweep.config.variants.model import read_shape
from sweep.errors import ConfigError
from sweep.loadgen import shape_mix
from sweep.spec import (
    DISTRIBUTIONS,
    RANGE,
    Dimension,
    ShapeDistribution,
    ShapeMix,
    ShapeProfiles,
    ShapeShare,
    by_size,
    engine_of,
    engine_shapes,
    plain_text,
    shape_text,
)

if TYPE_CHECKING:
    from sweep.config.schema import Config, LoadConfig
    from sweep.spec import LoadAxes, ModelRef, Shape

_MOST_ENGINES = 32
_MOST_SIZES = 10_000  # of a distribution
_FORM = (
    "give weights by size, as in load.shapes={64:0.5,128:0.5}, a list of {shape:,share:}, a distribution or a CSV "
    "file of sizes"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestShapes:
    """Hold the shapes of the requests and of the engines; a dimension may still be without a name, "".

    Attributes:
        mix: shapes of the requests.
        buckets: shapes that have an engine; None gives each shape one.
    """

    mix: ShapeMix
    buckets: tuple[Shape, ...] | None

    @property
    def largest(self) -> Shape:
        """Return the shape of the largest engine."""
        return engine_shapes(self.mix, self.buckets)[-1]

    def axes(self, model: ModelRef) -> dict[str, Any]:
        """Return the axes of the load, with the names of the dimensions.

        Args:
            model: the network at the shape of the largest engine.

        Raises:
            ModelError: it does not take the shape of an engine; one line.
        """
        names = [item.name for item in model.shape or ()]

        def named(shape: Shape) -> Shape:
            return tuple(Dimension(name=name, size=item.size) for name, item in zip(names, shape, strict=True))

        entries = tuple(dataclasses.replace(entry, shape=named(entry.shape)) for entry in self.mix.entries)
        mix = dataclasses.replace(self.mix, entries=entries)
        buckets = None if self.buckets is None else tuple(map(named, self.buckets))
        for shape in engine_shapes(mix, buckets):
            models.signature(dataclasses.replace(model, shape=shape))
        return {"shapes": mix, "buckets": buckets}


def request_shapes(load: LoadConfig) -> RequestShapes | None:
    """Return the shapes of the requests; None where all have that of the model.

    Raises:
        ConfigError: a value is malformed, a shape fits no bucket, or there are too many engines; one line.
        LoadError: the file cannot be read; one line.
    """
    if load.shapes is None:
        if load.buckets is not None:
            raise ConfigError("load.buckets pads the requests of load.shapes, which is not set; set both or neither")
        return None
    mix, buckets = _named_alike(_mix(load.shapes), _buckets(load.buckets))
    engines = engine_shapes(mix, buckets)
    if len(engines) > _MOST_ENGINES:
        raise ConfigError(
            f"load.shapes: {len(engines)} shapes would need an engine each, and {_MOST_ENGINES} is the most; give "
            "load.buckets, to which they are padded"
        )
    for entry in mix.entries:
        if engine_of(entry.shape, engines) is None:
            raise ConfigError(f"load.buckets: none takes {_text(entry.shape)} of load.shapes; add one that does")
    return RequestShapes(mix=mix, buckets=buckets)


def model_shape(config: Config) -> object:
    """Return what `shape` is: as composed, or that of the largest engine where the requests have shapes of their own.

    Raises:
        ConfigError: `shape` is something else; one line.
    """
    shapes = request_shapes(config.load)
    if shapes is None:
        return config.shape
    if config.model.engine is not None:
        raise ConfigError(
            "load.shapes: an engine is built for each shape, and model.engine is one; leave one of them out"
        )
    for key in ("samples", "labels"):
        if getattr(config.model, key) is not None:
            raise ConfigError(f"load.shapes: inputs of each shape are random, and model.{key} has one; leave one out")
    sizes = tuple((item.name or None, item.size) for item in shapes.largest)
    own = read_shape(config.shape)
    if own and not _same(own, sizes):
        raise ConfigError(
            f"shape={plain_text(config.shape)}: the requests have the shapes of load.shapes, the largest of which is "
            f"{_text(shapes.largest)}; leave shape out"
        )
    if own:
        return config.shape
    return sizes[0][1] if sizes[0][0] is None else dict(sizes)


def shape_profiles(config: Config, load: LoadAxes) -> ShapeProfiles:
    """Return the profiles of the one engine that serves the shapes of `load`.

    A range is optimized for the shape that most requests run at; of several, for the largest.

    Raises:
        ConfigError: the requests have no shapes of their own, or batches are a range too; one line.
    """
    way = config.profiles
    if load.shapes is None:
        raise ConfigError(
            f"profiles={way}: one engine serves the shapes of load.shapes, which is not set; give load.shapes too, or "
            "leave profiles out"
        )
    if config.profile != "static":
        raise ConfigError(
            f"profiles={way}: each profile has one batch size, and profile={config.profile} is a range of them; leave "
            "one of them out"
        )
    shares = [0.0] * len(load.engine_shapes)
    for entry, place in zip(load.shapes.entries, load.engine_places, strict=True):
        shares[place] += entry.share
    most = max(range(len(shares)), key=lambda place: (shares[place], place))
    best = load.engine_shapes[most] if way == RANGE else None
    return ShapeProfiles(way=way, shapes=load.engine_shapes, best=best)


def _same(one: tuple[tuple[str | None, int], ...], other: tuple[tuple[str | None, int], ...]) -> bool:
    """Tell whether two shapes agree, where a dimension without a name may be any."""
    return len(one) == len(other) and all(
        a_size == b_size and (a_name is None or b_name is None or a_name == b_name)
        for (a_name, a_size), (b_name, b_size) in zip(one, other, strict=True)
    )


def _text(shape: Shape) -> str:
    return shape_text(shape).removeprefix(":")


def _shape(key: str, value: object) -> Shape:
    """Return the shape that `value` of `key` describes."""
    try:
        return tuple(Dimension(name=name or "", size=size) for name, size in read_shape(value))
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _mix(value: Any) -> ShapeMix:
    """Return the mix that `load.shapes` describes: a table, a list of tables, or the path of a file."""
    if isinstance(value, str):
        return _recorded(value)
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict):
        return _distributed(*next(iter(value.items())))
    if isinstance(value, dict) and value:
        pairs = list(value.items())
    elif isinstance(value, list) and value and all(_is_entry(item) for item in value):
        pairs = [(item["shape"], item["share"]) for item in value]
    else:
        raise ConfigError(f"load.shapes={plain_text(value)}: {_FORM}")
    weights: dict[Shape, float] = {}
    for shape, weight in pairs:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(
                f"load.shapes: {plain_text(weight)} is no weight of {plain_text(shape)}; give one above 0"
            )
        sizes = _shape("load.shapes", int(shape) if isinstance(shape, str) and shape.isdecimal() else shape)
        if sizes in weights:
            raise ConfigError(f"load.shapes: {_text(sizes)} is there twice; add its weights up")
        weights[sizes] = float(weight)
    whole = math.fsum(weights.values())
    if math.isclose(whole, 1.0, rel_tol=1e-9):  # shares that are typed again from a record keep their last digit
        whole = 1.0
    return ShapeMix(
        entries=tuple(ShapeShare(shape=shape, share=weights[shape] / whole) for shape in sorted(weights, key=by_size))
    )


def _distributed(kind: object, values: dict[str, Any]) -> ShapeMix:
    """Return the mix of a distribution: the sizes of its steps, each with its share."""
    known = DISTRIBUTIONS.get(str(kind))
    if known is None:
        raise ConfigError(f"load.shapes: {kind} is no distribution; there are {', '.join(DISTRIBUTIONS)}")
    form = f"load.shapes={{{kind}:{plain_text(values)}}}"
    names = [*known.names, "least", "most"]
    unknown = [name for name in values if name not in {*names, "step"}]
    missing = [name for name in names if name not in values]
    if unknown or missing:
        what = f"has no {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise ConfigError(f"{form} {what}; give {', '.join(names)}, and step if sizes are multiples")
    numbers = {name: values[name] for name in known.names}
    sizes = {"step": 1, **{name: value for name, value in values.items() if name not in known.names}}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{form}: {name} is a whole number above 0")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ConfigError(f"{form}: {name} is a number above 0")
    if sizes["least"] > sizes["most"] or (sizes["most"] - sizes["least"]) // sizes["step"] >= _MOST_SIZES:
        raise ConfigError(f"{form}: least to most has to hold 1 to {_MOST_SIZES} sizes; change them, or step")
    centre, spread = [*map(float, numbers.values()), None, None][:2]
    distribution = ShapeDistribution(kind=str(kind), centre=centre, spread=spread, **sizes)
    shares = distribution.shares()
    if not shares:
        raise ConfigError(f"{form} has no size between least and most; move them, or the distribution")
    entries = tuple(
        ShapeShare(shape=(Dimension(name="", size=size),), share=share) for size, share in sorted(shares.items())
    )
    return ShapeMix(entries=entries, distribution=distribution)


def _is_entry(item: object) -> bool:
    return isinstance(item, dict) and set(item) == {"shape", "share"}


def _recorded(path: str) -> ShapeMix:
    """Return the mix of a file, whose rows are replayed."""
    recorded = shape_mix.read(path)
    entries = []
    for number, sizes in enumerate(recorded.shapes):
        shape = tuple(Dimension(name=name, size=size) for name, size in zip(recorded.names, sizes, strict=True))
        entries.append(ShapeShare(shape=shape, share=recorded.order.count(number) / len(recorded.order)))
    return ShapeMix(entries=tuple(entries), path=str(Path(path).expanduser().resolve()), digest=recorded.digest)


def _buckets(value: Any) -> tuple[Shape, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise ConfigError(f"load.buckets={plain_text(value)}: give a list of shapes, as in load.buckets=[64,128]")
    shapes = [_shape("load.buckets", item) for item in value]
    if len(set(shapes)) < len(shapes):
        raise ConfigError(f"load.buckets={plain_text(value)}: a bucket is there twice; leave one out")
    return tuple(sorted(shapes, key=by_size))


def _named_alike(mix: ShapeMix, buckets: tuple[Shape, ...] | None) -> tuple[ShapeMix, tuple[Shape, ...] | None]:
    """Return mix and buckets, where a size alone has the name of the one dimension that the others name.

    Raises:
        ConfigError: they do not all name the same dimensions; one line.
    """
    names = {
        tuple(item.name for item in shape) for shape in (*(entry.shape for entry in mix.entries), *(buckets or ()))
    }
    named = names - {("",)}
    if len(named) > 1 or (named and ("",) in names and len(next(iter(named))) > 1):
        texts = sorted("+".join(filter(None, each)) or "a size alone" for each in names)
        raise ConfigError(
            f"load.shapes and load.buckets: all have to name the same dimensions, and these differ: {', '.join(texts)}"
        )
    (name,) = named or {("",)}

    def renamed(shape: Shape) -> Shape:
        return tuple(Dimension(name=own, size=item.size) for own, item in zip(name, shape, strict=True))

    entries = tuple(dataclasses.replace(entry, shape=renamed(entry.shape)) for entry in mix.entries)
    return dataclasses.replace(mix, entries=entries), buckets and tuple(map(renamed, buckets))
