"""Datasets that several requests make at once."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from sweep.report.mlflow.runs import log_datasets

TWIN = "BAD_REQUEST: (sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name"


class Client:
    """A client whose first calls fail with these messages."""

    def __init__(self, *messages: str) -> None:
        self.messages, self.logged = list(messages), []

    def log_inputs(self, run_id: str, datasets: list[str]) -> None:
        if self.messages:
            raise MlflowException(self.messages.pop(0))
        self.logged.append((run_id, datasets))


@pytest.mark.parametrize("messages", [(), (TWIN,), (TWIN, TWIN)])
def test_a_dataset_that_another_request_has_just_made_is_logged_all_the_same(messages: tuple[str, ...]) -> None:
    client = Client(*messages)
    log_datasets(client, "run", ["fed", "scored"])
    assert client.logged == [("run", ["fed", "scored"])]


@pytest.mark.parametrize("messages", [("PERMISSION_DENIED",), (TWIN, TWIN, TWIN)])
def test_another_error_and_one_that_stays_are_told(messages: tuple[str, ...]) -> None:
    client = Client(*messages)
    with pytest.raises(MlflowException):
        log_datasets(client, "run", ["fed", "scored"])
    assert client.logged == []
