"""Build transformers, with random weights that keep the activations' scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep.models.signatures import BATCH, TensorSpec
from sweep.models.zoo import blocks
from sweep.models.zoo.graph_builder import GraphBuilder

if TYPE_CHECKING:
    import onnx

WIDTH, LAYERS, HEADS, HIDDEN = 768, 12, 12, 3072
"""The "base" size, which BERT and ViT share."""
EMBEDDING_STD = 0.02

BERT_VOCABULARY = 30522
BERT_POSITIONS = 512
BERT_SEQUENCE = 128
BERT_LONG_SEQUENCE = 384
"""What question answering on SQuAD is run at, in MLPerf Inference too."""
BERT_EPSILON = 1e-12
BERT_MASKED = -10000.0
"""Added to the score of a masked token: as good as minus infinity, and still a float16."""

VIT_SIZE, VIT_PATCH = 224, 16
VIT_TOKENS = (VIT_SIZE // VIT_PATCH) ** 2
VIT_EPSILON = 1e-6


def _bert_inputs(sequence: int) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec(name="input_ids", dtype="int64", shape=(BATCH, sequence), low=0, high=BERT_VOCABULARY - 1),
        TensorSpec(name="attention_mask", dtype="int64", shape=(BATCH, sequence), low=1, high=1),
        TensorSpec(name="token_type_ids", dtype="int64", shape=(BATCH, sequence), low=0, high=1),
    )


BERT_BASE_INPUTS = _bert_inputs(BERT_SEQUENCE)
BERT_BASE_384_INPUTS = _bert_inputs(BERT_LONG_SEQUENCE)
VIT_B16_INPUT = TensorSpec(name="x", dtype="float32", shape=(BATCH, 3, VIT_SIZE, VIT_SIZE))


def bert_base(*inputs: TensorSpec) -> onnx.ModelProto:
    """Build BERT-base, unless told at sequence 128: three int64 [batch,128] -> [batch,128,768], pooled [batch,768].

    Devlin et al., 2018, arXiv:1810.04805; 11.2 GMACs a sample.
    """
    return _bert("bert_base", inputs or BERT_BASE_INPUTS)


def bert_base_384() -> onnx.ModelProto:
    """Build BERT-base at sequence 384, with the weights of :func:`bert_base`; 35.3 GMACs a sample."""
    return _bert("bert_base_384", BERT_BASE_384_INPUTS)


def _bert(name: str, inputs: tuple[TensorSpec, ...]) -> onnx.ModelProto:
    sequence = inputs[0].shape[1]
    graph = GraphBuilder(name)
    ids, mask, types = (graph.input(spec) for spec in inputs)
    x = _bert_embeddings(graph, ids, types, sequence)
    scores_mask = _bert_mask(graph, mask)
    for index in range(LAYERS):
        layer = f"layer{index}"
        attended = blocks.attention(graph, x, f"{layer}.attention", WIDTH, heads=HEADS, mask=scores_mask)
        x = _add_norm(graph, x, attended, f"{layer}.attention.norm")
        output = "last_hidden_state" if index == LAYERS - 1 else f"{layer}.norm"
        x = _add_norm(graph, x, blocks.feed_forward(graph, x, f"{layer}.ffn", WIDTH, hidden=HIDDEN), output)
    graph.output(x, (BATCH, sequence, WIDTH))
    first = graph.op("Gather", x, graph.constant(0), name="first_token", axis=1)
    pooled = graph.op("Tanh", blocks.linear(graph, first, "pooler", (WIDTH, WIDTH)), name="pooler_output")
    graph.output(pooled, (BATCH, WIDTH))
    return graph.model()


def _bert_embeddings(graph: GraphBuilder, ids: str, types: str, sequence: int | str) -> str:
    word = graph.normal("embeddings.word.weight", (BERT_VOCABULARY, WIDTH), EMBEDDING_STD)
    kind = graph.normal("embeddings.type.weight", (2, WIDTH), EMBEDDING_STD)
    position = graph.normal("embeddings.position.weight", (BERT_POSITIONS, WIDTH), EMBEDDING_STD)
    start, axis = graph.constant([0]), graph.constant([0])
    if isinstance(sequence, int):
        end = graph.constant([sequence])
    else:  # an open sequence is as long as the tokens are
        end = graph.op("Shape", ids, name="embeddings.length", start=1, end=2)
    positions = graph.op("Slice", position, start, end, axis, name="embeddings.position")
    tokens = graph.op("Gather", word, ids, name="embeddings.word")
    tokens = graph.op("Add", tokens, graph.op("Gather", kind, types, name="embeddings.type"), name="embeddings.typed")
    return _add_norm(graph, tokens, positions, "embeddings.norm")


def _bert_mask(graph: GraphBuilder, mask: str) -> str:
    """Compute what is added to the scores: [batch,seq] of 1 (a token) and 0 (padding) -> [batch,1,1,seq]."""
    from onnx import TensorProto

    mask = graph.op("Cast", mask, name="mask.cast", to=TensorProto.FLOAT)
    mask = graph.op("Unsqueeze", mask, graph.constant([1, 2]), name="mask.unsqueeze")
    dropped = graph.op("Sub", graph.constant(1.0, "float32"), mask, name="mask.invert")
    return graph.op("Mul", dropped, graph.constant(BERT_MASKED, "float32"), name="mask")


def _add_norm(graph: GraphBuilder, x: str, y: str, name: str) -> str:
    total = graph.op("Add", x, y, name=f"{name}.add")
    return blocks.layer_norm(graph, total, name, WIDTH, epsilon=BERT_EPSILON)


def vit_b16(image: TensorSpec = VIT_B16_INPUT) -> onnx.ModelProto:
    """Build ViT-B/16: [batch,3,224,224] -> logits [batch,1000]; 17.6 GMACs a sample.

    Dosovitskiy et al., 2020, arXiv:2010.11929.
    """
    graph = GraphBuilder("vit_b16")
    x = _vit_tokens(graph, graph.input(image), tokens=math.prod(int(size) // VIT_PATCH for size in image.shape[2:]))
    for index in range(LAYERS):
        name = f"layer{index}"
        normed = blocks.layer_norm(graph, x, f"{name}.norm1", WIDTH, epsilon=VIT_EPSILON)
        attended = blocks.attention(graph, normed, f"{name}.attention", WIDTH, heads=HEADS)
        x = graph.op("Add", x, attended, name=f"{name}.add1")
        normed = blocks.layer_norm(graph, x, f"{name}.norm2", WIDTH, epsilon=VIT_EPSILON)
        x = graph.op("Add", x, blocks.feed_forward(graph, normed, f"{name}.ffn", WIDTH, hidden=HIDDEN), name=name)
    normed = blocks.layer_norm(graph, x, "norm", WIDTH, epsilon=VIT_EPSILON)
    first = graph.op("Gather", normed, graph.constant(0), name="class_token.output", axis=1)
    graph.output(blocks.linear(graph, first, "logits", (WIDTH, 1000)), (BATCH, 1000))
    return graph.model()


def _vit_tokens(graph: GraphBuilder, image: str, *, tokens: int) -> str:
    """Concatenate patches and class token, and add positions: [batch,3,224,224] -> [batch,197,768]."""
    side = [VIT_PATCH, VIT_PATCH]
    weight = graph.normal("patches.weight", (WIDTH, 3, *side), math.sqrt(1 / (3 * VIT_PATCH**2)))
    bias = graph.normal("patches.bias", (WIDTH,), blocks.BIAS_STD)
    grid = graph.op("Conv", image, weight, bias, name="patches", kernel_shape=side, strides=side)
    flat = graph.op("Reshape", grid, graph.constant([0, WIDTH, tokens]), name="patches.flat")
    patches = graph.op("Transpose", flat, name="patches.tokens", perm=[0, 2, 1])
    batch = graph.op("Shape", image, name="batch_size", start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([1, WIDTH]), name="class_token.shape", axis=0)
    token = graph.normal("class_token.weight", (1, 1, WIDTH), EMBEDDING_STD)
    token = graph.op("Expand", token, shape, name="class_token")
    placed = graph.op("Concat", token, patches, name="tokens", axis=1)
    positions = graph.normal("positions.weight", (1, tokens + 1, WIDTH), EMBEDDING_STD)
    return graph.op("Add", placed, positions, name="tokens.placed")
