"""A real browser without a window, for tests of the page."""

import contextlib
import os
import shutil
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "BSDENOISE_REQUIRE_BROWSER"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def _unavailable(reason):
    """Skips the tests; where a browser is required, as in continuous integration, they fail."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1")
    pytest.skip(reason)


@contextlib.contextmanager
def opened():
    """Starts a browser; skips where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        _unavailable("no Chromium is found on the PATH")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _unavailable("Playwright is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A window of the browser that remembers what should not have happened.

    Attributes:
        page: Playwright's page.
        complaints: Errors on the console, exceptions in scripts, answers that are errors.
        foreign: Addresses outside of `url` that were asked for.
    """

    def __init__(self, browser, url, **options):
        self.complaints, self.foreign = [], []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        here = urlsplit(url).netloc
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda answer: self.complaints.append(answer.url) if answer.status >= 400 else None)
        self.context.on("request", lambda request: self._look_at(request.url, here))
        self.page.goto(url)

    def _look_at(self, address, here):
        parts = urlsplit(address)
        if parts.scheme not in ("data", "blob") and parts.netloc != here:
            self.foreign.append(address)
