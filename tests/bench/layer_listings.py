"""Join the layers of every network of the zoo to its nodes, without running one: ``layer_listings.py [WORD ...]``.

Each engine is built on this machine, onnxruntime's and TensorRT-RTX's, and its listing is joined to the typed graph.
The table is that of docs/evidence/layers.md: layers, those joined to nodes, those that the library added by reason, and
nodes that no layer computes by operator. Words are networks, precisions and backends; none for all.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import onnx

from sweep.backends import registry
from sweep.backends.onnxruntime.graph_join import join
from sweep.backends.tensorrt import layer_listing
from sweep.config import compose, variants
from sweep.runner.worker.artifacts import make_artifacts
from sweep.storage.cache import Cache
from sweep.system import onnx_shapes

NETWORKS = ("digits", "mlp", "tiny_cnn", "mobilenet_v3", "resnet50", "unet", "sd_unet_block", "vit_b16", "bert_base")
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = ("onnxruntime", "tensorrt_rtx")


def joined_layers(engine: Path, graph: onnx.GraphProto) -> list[tuple[list[str], str | None]]:
    """Return the nodes of each layer of a built engine, and why the library added it where it has none."""
    saved = engine / "optimised.onnx"
    if saved.is_file():
        return [(item.nodes, item.added) for item in join(onnx.load(saved, load_external_data=False).graph, graph)]
    information = json.loads((engine / "inspector.json").read_text(), strict=False)
    return [(item["nodes"], item["added"]) for item in layer_listing.describe_layers(information, graph)]


def row(words: list[str], results: Path) -> str:
    """Return the line of the table of one variant."""
    request = compose.read([*words, "batch=1", f"results={results}"])
    variant = next(iter(variants.from_configs(request.configs)))
    with Cache(results / "cache", None) as cache:
        made = make_artifacts(variant, registry.get(variant.backend), cache)
        graph = onnx.load(made.onnx.typed, load_external_data=False).graph
        layers = joined_layers(made.engine.path, graph)
    computed = {name for nodes, _ in layers for name in nodes}
    names = onnx_shapes.node_names(graph)
    without = Counter(node.op_type for name, node in zip(names, graph.node, strict=True) if name not in computed)
    added = Counter(why for nodes, why in layers if not nodes)
    joined = sum(bool(nodes) for nodes, _ in layers)
    unnamed = sum(not nodes and why is None for nodes, why in layers)
    cells = (
        variant.backend,
        variant.onnx.model.name,
        variant.onnx.precision.name,
        len(graph.node),
        len(layers),
        joined,
    )
    texts = (", ".join(f"{count} {name}" for name, count in counts.most_common()) or "0" for counts in (added, without))
    return "| " + " | ".join(map(str, (*cells, *texts))) + f" |{'' if not unnamed else f' {unnamed} UNNAMED'}"


def show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(words: list[str]) -> None:
    def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name in words) or names

    show("| backend | network | precision | nodes | layers | joined | added | nodes of no layer |")
    show("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for network in chosen(NETWORKS):
            for precision in chosen(PRECISIONS):
                for backend in chosen(BACKENDS):
                    more = ["backend.compute_capability=8.9"] if backend == "tensorrt_rtx" else []
                    axes = [f"model={network}", f"precision={precision}", f"backend={backend}", *more]
                    try:
                        show(row(axes, Path(folder)))
                    except Exception as error:  # noqa: BLE001 - the others are still to be seen
                        show(f"| {backend} | {network} | {precision} | {' '.join(str(error).split())[:200]} |")


if __name__ == "__main__":
    main(sys.argv[1:])
