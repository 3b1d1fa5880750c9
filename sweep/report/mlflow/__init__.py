"""Send records to MLflow by idempotent replay. Disk is the truth: what MLflow loses is sent again.

One run per sweep, one child run per record, and one saved view that opens on the curves.
Importing this package does not import mlflow.
"""

from sweep.report.mlflow import sweep_runs
from sweep.report.mlflow.comparison_run import ComparisonRun, Content, record_comparison
from sweep.report.mlflow.live import Publishing
from sweep.report.mlflow.pages_address import announce, free_port, ui_address
from sweep.report.mlflow.publisher import Published, Publisher
from sweep.report.mlflow.read_back import read_records
from sweep.report.mlflow.registry import ALIAS, Version, Winner, register
from sweep.report.mlflow.store_uri import default_uri, is_http, reachable, resolve_uri, sqlite_path, without_password

__all__ = [
    "ALIAS",
    "ComparisonRun",
    "Content",
    "Published",
    "Publisher",
    "Publishing",
    "Version",
    "Winner",
    "announce",
    "default_uri",
    "free_port",
    "is_http",
    "reachable",
    "read_records",
    "record_comparison",
    "register",
    "resolve_uri",
    "sqlite_path",
    "sweep_runs",
    "ui_address",
    "without_password",
]
