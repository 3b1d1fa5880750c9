"""Hold the programs that ``sweep take`` copies beside an engine. They import nothing of this package.

``infer.py`` is the same for every library; ``onnxruntime_engine.py`` or ``tensorrt_engine.py`` becomes ``engine.py``.
"""
