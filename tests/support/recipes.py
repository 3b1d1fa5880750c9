"""Load the precision recipes that ship in conf/precision."""

import dataclasses
from pathlib import Path

from omegaconf import OmegaConf

from sweep.config import variants
from sweep.config.schema import Config, PrecisionConfig
from sweep.spec import Precision

CONF = Path(__file__).parents[2] / "conf" / "precision"
RECIPES = ("fp32", "tf32", "fp16", "bf16", "int8", "int8_fp16", "int8_bf16", "fp8", "fp8_fp16", "fp8_bf16")


def shipped(name: str) -> Precision:
    """The recipe of ``conf/precision``, calibrated on one batch."""
    values = OmegaConf.merge(OmegaConf.structured(PrecisionConfig), OmegaConf.load(CONF / f"{name}.yaml"))
    made = variants.recipe(Config(precision=OmegaConf.to_object(values)))
    return dataclasses.replace(made, calibration_batches=1) if made.calibration_batches else made
