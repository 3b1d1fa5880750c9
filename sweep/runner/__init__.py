"""A lane measures on one device, one pass at a time: its worker, its lock, its telemetry, its sentinel.

``device`` says which there are and what a worker needs to use one; ``turns`` keeps everybody else off it meanwhile;
``lane`` is the order of things, ``shared`` what all lanes have in common; ``jobs`` asks the worker, ``parts`` keeps
passes until their variant is whole, ``recording`` makes the record.
"""
