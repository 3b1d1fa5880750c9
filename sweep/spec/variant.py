"""Define one point of all axes, and its short name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweep.spec.axis import axis
from sweep.spec.engine import EngineAxes
from sweep.spec.load import LoadAxes
from sweep.spec.onnx import OnnxAxes  # noqa: TC001 - ``serialization.from_plain`` reads the types of the fields
from sweep.spec.pipeline import Pipeline, pipeline_axis
from sweep.spec.session import SessionAxes

if TYPE_CHECKING:
    from sweep.spec.onnx import ModelRef

_PLACE = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Hold one value of every axis: everything that decides a measured curve."""

    backend: str = axis(
        key="backend.name",
        help=(
            "inference library: auto, tensorrt, tensorrt_rtx, onnxruntime or simulated; auto prints its choice and why"
        ),
        cli_default="auto",
        place=_PLACE,
        column="backend",
    )
    onnx: OnnxAxes
    engine: EngineAxes = field(default_factory=EngineAxes)
    session: SessionAxes = field(default_factory=SessionAxes)
    load: LoadAxes = field(default_factory=LoadAxes)
    pipeline: Pipeline | None = pipeline_axis()  # noqa: RUF009 - a field, as axis() makes it

    @property
    def reference(self) -> ModelRef | None:
        """Return the network that the outputs are compared with; None for a plan that came without one."""
        model = self.onnx.model
        alone = self.engine.plan is not None and model.path is None and model.revision is None
        return None if alone else model

    @property
    def label(self) -> str:
        """Return the short name, with only the axes that are set: ``tiny_cnn fp16 b8 s2``."""
        from sweep.spec.axes import label  # this module lists the fields of the class, so it is loaded later

        return label(self)
