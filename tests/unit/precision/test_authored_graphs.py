"""Every network that the tests author is valid ONNX."""

from pathlib import Path

import onnx
import pytest
from authored_graphs import NETWORKS, save


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_are_valid(name: str, tmp_path: Path) -> None:
    onnx.checker.check_model(save(name, tmp_path), full_check=True)
