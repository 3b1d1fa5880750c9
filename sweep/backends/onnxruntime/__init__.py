"""Run typed ONNX on onnxruntime."""

NUMERIC_TYPES = frozenset(
    f"tensor({name})"
    for name in (
        *("float", "double", "float16", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
"""Name the types of outputs, in onnxruntime's words, that numpy has: others can be run, and not read or compared."""
