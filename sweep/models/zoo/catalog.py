"""List the networks that `sweep` builds itself: deterministic, with random weights, nothing to download.

A change to what a network's bytes are needs a new ``revision``: it is part of every key, and a test
pins each network's sha256 beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.models.zoo import convnets, diffusion, digits, mobilenet, pipelines, transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    from sweep.models.datasets.labelled_arrays import DataSet
    from sweep.models.signatures import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooDimension:
    """Describe a size of a network's inputs that can be set.

    Attributes:
        name: as in ``shape=NAME:SIZE``.
        axis: where it stands in the shape of every input.
        least: smallest size.
        most: largest size; None for no limit.
        multiple_of: step between sizes.
        open: the graph can leave it open; weights depend on it where it cannot.
    """

    name: str
    axis: int
    least: int
    most: int | None = None
    multiple_of: int = 1
    open: bool = True

    def refusal(self, size: int) -> str | None:
        """Return what sizes there are, where this is none of them; else None."""
        if size >= self.least and (self.most is None or size <= self.most) and size % self.multiple_of == 0:
            return None
        limits = f"{self.least} and more" if self.most is None else f"{self.least} to {self.most}"
        return limits + (f", multiples of {self.multiple_of}" if self.multiple_of > 1 else "")


def _image(least: int, multiple_of: int = 1, *, can_open: bool = True) -> tuple[ZooDimension, ...]:
    """Return height and width of images of shape (batch, channels, h, w)."""
    return tuple(
        ZooDimension(name=name, axis=axis, least=least, multiple_of=multiple_of, open=can_open) for name, axis in _SIDES
    )


_SIDES = (("h", 2), ("w", 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """Describe a network without building it.

    Attributes:
        name: what ``model=`` takes.
        revision: raised whenever the network's bytes change.
        build: makes the float32 ONNX model, at inputs of other sizes where it is given some.
        inputs: its inputs, batch axis and ranges included.
        outputs: names of its outputs, all float32.
        parameters: number of weights, as :func:`sweep.models.parameters` counts them.
        source: where the architecture is from.
        data: what it was trained on and is scored on; None for random weights.
        calibrate_by: most samples in a batch of calibration, where the activations are large.
        dimensions: sizes of the inputs that can be set.
    """

    name: str
    revision: int
    build: Callable[..., onnx.ModelProto]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    parameters: int
    source: str
    data: DataSet | None = None
    calibrate_by: int | None = None
    dimensions: tuple[ZooDimension, ...] = ()

    def inputs_at(self, sizes: Mapping[str, int | str]) -> tuple[TensorSpec, ...]:
        """Return the inputs with some dimensions at other sizes.

        Args:
            sizes: of dimensions, by name; each is one of ``dimensions``. A word leaves the dimension open.
        """
        places = {item.axis: sizes[item.name] for item in self.dimensions if item.name in sizes}
        return tuple(
            replace(spec, shape=tuple(places.get(axis, size) for axis, size in enumerate(spec.shape)))
            for spec in self.inputs
        )


_ENTRIES = (
    ZooEntry(
        name="ocr_detector_tiny",
        revision=1,
        build=pipelines.ocr_detector_tiny,
        inputs=(pipelines.IMAGE_TINY,),
        outputs=("scores",),
        parameters=4_321,
        source="ours: a small detector of lines of text, a stage of pipeline=ocr_tiny",
    ),
    ZooEntry(
        name="sd_text_encoder_tiny",
        revision=1,
        build=diffusion.sd_text_encoder_tiny,
        inputs=diffusion.text_inputs(diffusion.TINY),
        outputs=("text",),
        parameters=5_073,
        source="ours: as sd_text_encoder, a stage of pipeline=sd_tiny",
    ),
    ZooEntry(
        name="ocr_recogniser_tiny",
        revision=1,
        build=pipelines.ocr_recogniser_tiny,
        inputs=(pipelines.LINE,),
        outputs=("logits",),
        parameters=8_952,
        source="ours: a small recogniser of a line of text, a stage of pipeline=ocr_tiny",
    ),
    ZooEntry(
        name="sd_vae_decoder_tiny",
        revision=1,
        build=diffusion.sd_vae_decoder_tiny,
        inputs=diffusion.decoder_inputs(diffusion.TINY),
        outputs=("image",),
        parameters=32_147,
        source="ours: as sd_vae_decoder, a stage of pipeline=sd_tiny",
    ),
    ZooEntry(
        name="sd_unet_tiny",
        revision=1,
        build=diffusion.sd_unet_tiny,
        inputs=diffusion.unet_inputs(diffusion.TINY),
        outputs=("noise",),
        parameters=132_960,
        source="ours: as sd_unet, a stage of pipeline=sd_tiny",
    ),
    ZooEntry(
        name="tiny_cnn",
        revision=1,
        build=convnets.tiny_cnn,
        inputs=(convnets.TINY_CNN_INPUT,),
        outputs=("logits",),
        parameters=23_914,
        source="ours: a CIFAR-sized CNN small enough for a demonstration on a laptop's CPU",
        dimensions=_image(4),
    ),
    ZooEntry(
        name="mlp",
        revision=1,
        build=convnets.mlp,
        inputs=(convnets.MLP_INPUT,),
        outputs=("logits",),
        parameters=1_863_690,
        source="ours: a perceptron of MNIST's shape, so short that the cost of enqueueing shows",
    ),
    ZooEntry(
        name="digits",
        revision=1,
        build=digits.digits,
        inputs=(digits.INPUT,),
        outputs=("logits",),
        parameters=19_178,
        source="ours: a trained CNN for scikit-learn's digits, so that there is a score to lose",
        data=digits.DATA,
    ),
    ZooEntry(
        name="unet",
        revision=1,
        build=convnets.unet,
        inputs=(convnets.UNET_INPUT,),
        outputs=("logits",),
        parameters=1_946_984,
        source="small U-Net after Ronneberger et al., 2015, arXiv:1505.04597",
        dimensions=_image(16, 8),
    ),
    ZooEntry(
        name="mobilenet_v3",
        revision=1,
        build=mobilenet.mobilenet_v3,
        inputs=(mobilenet.INPUT,),
        outputs=("logits",),
        parameters=5_470_832,
        source="MobileNetV3-Large, batch norm folded; Howard et al., 2019, arXiv:1905.02244: 5.4 M, 0.219 GMACs",
        dimensions=_image(32),
    ),
    ZooEntry(
        name="resnet50",
        revision=1,
        build=convnets.resnet50,
        inputs=(convnets.RESNET50_INPUT,),
        outputs=("logits",),
        parameters=25_530_472,
        source="ResNet-50 v1.5, batch norm folded; He et al., 2015, arXiv:1512.03385: 25.6 M",
        dimensions=_image(32),
    ),
    ZooEntry(
        name="sd_unet_block",
        revision=1,
        build=diffusion.sd_unet_block,
        inputs=diffusion.INPUTS,
        outputs=("level2.transformer",),
        parameters=86_565_184,
        source="half of the way down of Stable Diffusion 1.5's U-Net; Rombach et al., 2021, arXiv:2112.10752",
        calibrate_by=1,
    ),
    ZooEntry(
        name="vit_b16",
        revision=1,
        build=transformers.vit_b16,
        inputs=(transformers.VIT_B16_INPUT,),
        outputs=("logits",),
        parameters=86_567_656,
        source="ViT-B/16; Dosovitskiy et al., 2020, arXiv:2010.11929: 86.6 M",
        dimensions=_image(16, 16, can_open=False),
    ),
    ZooEntry(
        name="bert_base",
        revision=1,
        build=transformers.bert_base,
        inputs=transformers.BERT_BASE_INPUTS,
        outputs=("last_hidden_state", "pooler_output"),
        parameters=109_482_240,
        source="BERT-base uncased; Devlin et al., 2018, arXiv:1810.04805: 110 M",
        dimensions=(ZooDimension(name="seq", axis=1, least=1, most=transformers.BERT_POSITIONS),),
    ),
    ZooEntry(
        name="bert_base_384",
        revision=1,
        build=transformers.bert_base_384,
        inputs=transformers.BERT_BASE_384_INPUTS,
        outputs=("last_hidden_state", "pooler_output"),
        parameters=109_482_240,
        source="BERT-base at the sequence length of SQuAD, as in MLPerf Inference",
    ),
    ZooEntry(
        name="ocr_detector",
        revision=1,
        build=pipelines.ocr_detector,
        inputs=(pipelines.IMAGE,),
        outputs=("scores",),
        parameters=1_172_513,
        source="ours: a detector of lines of text in the manner of EAST; Zhou et al., 2017, arXiv:1704.03155",
    ),
    ZooEntry(
        name="ocr_recogniser",
        revision=1,
        build=pipelines.ocr_recogniser,
        inputs=(pipelines.LINE,),
        outputs=("logits",),
        parameters=2_499_552,
        source="ours: CRNN with attention for its recurrent layers; Shi et al., 2015, arXiv:1507.05717",
    ),
    ZooEntry(
        name="sd_vae_decoder",
        revision=1,
        build=diffusion.sd_vae_decoder,
        inputs=diffusion.decoder_inputs(diffusion.SD15),
        outputs=("image",),
        parameters=49_490_267,
        source="decoder of Stable Diffusion 1.5; Rombach et al., 2021, arXiv:2112.10752: 49.5 M",
        calibrate_by=1,
    ),
    ZooEntry(
        name="sd_text_encoder",
        revision=1,
        build=diffusion.sd_text_encoder,
        inputs=diffusion.text_inputs(diffusion.SD15),
        outputs=("text",),
        parameters=123_066_409,
        source="CLIP ViT-L/14, text; Radford et al., 2021, arXiv:2103.00020: 123 M",
    ),
    ZooEntry(
        name="sd_unet",
        revision=1,
        build=diffusion.sd_unet,
        inputs=diffusion.unet_inputs(diffusion.SD15),
        outputs=("noise",),
        parameters=859_521_032,
        source="U-Net of Stable Diffusion 1.5; Rombach et al., 2021, arXiv:2112.10752: 860 M",
        calibrate_by=1,
    ),
)


def names() -> tuple[str, ...]:
    """List the names of all networks, smallest first."""
    return tuple(item.name for item in _ENTRIES)


def entry(name: str) -> ZooEntry:
    """Return the network of that name.

    Raises:
        ConfigError: there is none.
    """
    for item in _ENTRIES:
        if item.name == name:
            return item
    choices = ", ".join(names())
    raise ConfigError(f"model {name!r} is unknown; take one of {choices}, or your own file with model.path=FILE.onnx")


def build(name: str) -> onnx.ModelProto:
    """Build the float32 ONNX model of that name: the same bytes each time.

    Raises:
        ConfigError: there is none.
    """
    return entry(name).build()
