"""Put inference libraries behind one interface (`base`), loaded by name (`registry`)."""

from sweep.backends.base import (
    Backend,
    ProfileLimits,
    Session,
    Stream,
    SupportsBuildsAnywhere,
    SupportsEmulation,
    SupportsLayerProfile,
    SupportsPartTimes,
    SupportsPlans,
    SupportsPolling,
    SupportsProfilerCapture,
    SupportsShapeProfiles,
    SupportsShapes,
    SupportsStreamOutputs,
    SupportsTurns,
    unsupported_reason,
)
from sweep.backends.onnxruntime import NUMERIC_TYPES

__all__ = [
    "NUMERIC_TYPES",
    "Backend",
    "ProfileLimits",
    "Session",
    "Stream",
    "SupportsBuildsAnywhere",
    "SupportsEmulation",
    "SupportsLayerProfile",
    "SupportsPartTimes",
    "SupportsPlans",
    "SupportsPolling",
    "SupportsProfilerCapture",
    "SupportsShapeProfiles",
    "SupportsShapes",
    "SupportsStreamOutputs",
    "SupportsTurns",
    "registry",
    "tensorrt",
    "unsupported_reason",
]
