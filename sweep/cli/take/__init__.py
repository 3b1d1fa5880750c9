"""Take variants away: the engine with what it takes to load, check and trust it (``sweep take``)."""
