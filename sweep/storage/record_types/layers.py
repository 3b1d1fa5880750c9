"""Type the layer profile of an engine: what ``layers/KEY.json`` in the folder of a sweep holds.

It is written once, by the worker that measured it, and holds all that the analysis of layers needs: the times, what the
library says of its layers, and the graph that it built them from, with shapes at the batch that ran.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from sweep.storage.record_types.values import Bytes, Count, Magnitude, Number, Share


class LayerTime(TypedDict):
    """Summarise the durations of one layer over the profiled inferences.

    Attributes:
        median_us: median, us.
        p10_us: a tenth of the inferences took no longer, us.
        p90_us: nine tenths took no longer, us.
        count: inferences in which the layer was timed.
    """

    median_us: Magnitude
    p10_us: Magnitude
    p90_us: Magnitude
    count: Count


class LayerTensor(TypedDict):
    """Describe a tensor that a layer reads or writes, as the library holds it.

    Attributes:
        name: name that the library gives it.
        shape: size of each dimension; None where the library does not tell.
        dtype: fp32, fp16, bf16, fp8, int8, int32, int64, bool or as the library names it; None where it does not tell.
        format: layout in memory, in the library's words.
    """

    name: str
    shape: list[int] | None
    dtype: str | None
    format: NotRequired[str | None]


class LayerKernel(TypedDict):
    """Describe a kernel that a layer launches.

    Attributes:
        name: its function, demangled where that is possible.
        time: its own durations, from its start to its end.
    """

    name: str
    time: LayerTime


class Layer(TypedDict):
    """Describe one layer of the engine.

    Attributes:
        name: name that the library gives it; unique in the engine.
        kind: its type, in the library's words (``correlation``, ``gemm``, ``kgen``, ``Conv``).
        time: its durations; None where the library reports none for it. Of recorded kernels, what they add to the
            inference: what two kernels share counts for the earlier one.
        nodes: names of the nodes of the graph that it computes, in the graph's order; empty for a layer that the
            library added.
        added: why the library added a layer that no node asks for: ``reformat``, ``copy``, ``cast`` or ``other``; None
            for a layer of the graph.
        inputs: what it reads.
        constants: weights and other constants that it reads.
        outputs: what it writes.
        tactic: implementation that the library chose; None where it does not tell.
        stream: number of the stream inside the engine; None where the library does not tell.
        kernels: what it launches; missing where kernels were not recorded.
    """

    name: str
    kind: str
    time: LayerTime | None
    nodes: list[str]
    added: str | None
    inputs: list[LayerTensor]
    constants: list[LayerTensor]
    outputs: list[LayerTensor]
    tactic: str | None
    stream: Count | None
    kernels: NotRequired[list[LayerKernel]]


class GraphNode(TypedDict):
    """Describe a node of the typed ONNX graph.

    Attributes:
        name: unique name; one is made where the file has none.
        op: operator, with its domain in front unless it is ONNX's own (``com.microsoft.FusedConv``).
        inputs: names of the tensors that it reads; empty for an optional one that is left out.
        outputs: names of the tensors that it writes.
        attributes: its attributes that are numbers, texts or lists of these.
    """

    name: str
    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


class GraphTensor(TypedDict):
    """Describe a tensor of the typed ONNX graph at the batch that ran.

    Attributes:
        shape: size of each dimension; None where it is not known.
        dtype: as ``LayerTensor.dtype``; None where it is not known.
        constant: it is stored in the graph, or computed from what is.
    """

    shape: list[int] | None
    dtype: str | None
    constant: bool


class LayerProfile(TypedDict):
    """Describe where the time of an inference goes, layer by layer.

    Attributes:
        schema: 1.
        key: key of the variant.
        label: its label.
        backend: its backend.
        device: name of the GPU or CPU.
        batch: samples in an inference.
        precision: name of its precision.
        inferences: inferences that were profiled, after the warm-up.
        source: what timed the layers: ``cupti`` (kernels, by the GPU's own clock), ``library`` (the library's profiler
            by events around each layer) or ``onnxruntime`` (its node profile, by the host's clock).
        cuda_graph: the profiled inferences were replays of a CUDA graph.
        timed_us: median duration of an inference of the same session without a profiler, just before or after, us; GPU
            time between two events, for onnxruntime the time of the call.
        profiled_us: median duration of an inference while it was profiled, us; None where it was not measured.
        layer_cost_us: what the profiler adds to each layer, us, which is subtracted from the times of the layers; None
            where nothing was subtracted.
        gaps_us: median time between kernels in which none ran, us; where recording slowed the enqueue, what the timed
            inference leaves beside its kernels. None where kernels were not recorded.
        layers: the layers, in the order in which they run.
        nodes: the nodes of the graph, in its order.
        tensors: the tensors of the graph, by name.
        notes: what a reader has to know, in whole sentences.
        memory_bytes: memory of the device by owner (weights, activations, contexts); missing without a GPU.
        clock_share: SM clock over its maximum while the profile ran; None where it was not read.
    """

    schema: Count
    key: str
    label: str
    backend: str
    device: str | None
    batch: Count
    precision: str
    inferences: Count
    source: str
    cuda_graph: bool
    timed_us: Magnitude
    profiled_us: Magnitude | None
    layer_cost_us: Number | None
    gaps_us: Number | None
    layers: list[Layer]
    nodes: list[GraphNode]
    tensors: dict[str, GraphTensor]
    notes: list[str]
    memory_bytes: NotRequired[dict[str, Bytes]]
    clock_share: NotRequired[Share | None]
