"""A headless Chromium for tests; without one they skip with the reason, or fail where it is required."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from typing import TYPE_CHECKING

from require import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium import webdriver

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1200",
)


def require(what: str) -> None:
    """Goes on only where ``what`` is installed; the one known so far is ``chromium`` with its driver."""
    reason = {"chromium": _chromium_lacks}[what]()
    if reason:
        missing(what, reason)


@contextlib.contextmanager
def chromium_driver() -> Iterator[webdriver.Chrome]:
    """A fresh headless Chromium of 1600 x 1200 that remembers nothing; it ends with the block."""
    require("chromium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = _browser() or ""
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _chromium_lacks() -> str | None:
    if _browser() is None:
        return f"none of {', '.join(BROWSERS)} is on PATH"
    return None if shutil.which("chromedriver") else "chromedriver is not on PATH"
