"""A real browser on a real explorer, which shows the demo."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from procpre_interp.store.store import RunStore
from tests.results import fill

sync_api = pytest.importorskip("playwright.sync_api", reason="`make test-app` installs what these tests need")

from playwright.sync_api import Browser, Page  # noqa: E402

SETTLED = '[data-testid="stApp"][data-test-script-state="notRunning"][data-test-connection-state="CONNECTED"]'
SECONDS = 60
DRAWN = """() => {
    const charts = [...document.querySelectorAll('[data-testid=stPlotlyChart]')];
    const texts = charts.map(chart => chart.querySelectorAll('svg text').length);
    const now = JSON.stringify(texts), before = window.seenTexts || [];
    window.seenTexts = [...before, now].slice(-4);
    return texts.every(n => n > 0) && before.length === 4 && before.every(each => each === now);
}"""
"""Every chart has its texts, and as many as in the four looks before.

A chart whose container is there may still be without its title, and a page without the container of its last chart.
"""
IGNORED = ("Failed to load resource", "preload", "WebGL", "GPU")
"""Parts of console messages that are not ours: of a page that is left, or of a machine without a screen."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Explorer:
    """A page of the browser on an explorer, and what went wrong in its console."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)

    def open(self, path: str = "", **query: str) -> None:
        parameters = "&".join(f"{key}={value}" for key, value in query.items())
        self.page.goto(f"{self.address}/{path}{'?' if parameters else ''}{parameters}")
        self.settle()

    def settle(self) -> None:
        """Wait until the script has run and every figure is drawn."""
        self.page.wait_for_selector(SETTLED, timeout=SECONDS * 1000)
        self.page.wait_for_timeout(400)
        self.page.wait_for_selector(SETTLED, timeout=SECONDS * 1000)
        self.page.evaluate("window.seenTexts = []")
        self.page.wait_for_function(DRAWN, timeout=SECONDS * 1000, polling=100)

    def figures(self) -> list[tuple[int, float, float]]:
        """Of each figure: how many traces, width and height in pixels."""
        return self.page.evaluate(
            "() => [...document.querySelectorAll('.js-plotly-plot')].map(e => "
            "[e.data.length, e.getBoundingClientRect().width, e.getBoundingClientRect().height])"
        )

    def check(self) -> None:
        """No traceback, no red box, nothing in the console, and every figure has traces and a size."""
        assert self.page.locator('[data-testid="stException"]').count() == 0
        assert self.page.locator('[data-testid="stAlertContentError"]').all_inner_texts() == []
        assert self.problems == []
        for traces, width, height in self.figures():
            assert traces > 0
            assert width > 150
            assert height > 150

    def screenshot(self, name: str) -> Path:
        """A PNG of what is seen, of fewer colours, so that it is small."""
        from PIL import Image

        path = FOLDER / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        with Image.open(path) as image:
            image.convert("RGB").quantize(128).save(path, optimize=True)
        return path


FOLDER = Path(os.environ.get("PROCPRE_SCREENSHOTS", "screenshots"))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An explorer on an empty store."""
    with serve(tmp_path_factory.mktemp("empty") / "runs", tmp_path_factory.mktemp("log") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def filled_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An explorer that begins with the demo, on a store that holds runs."""
    store = tmp_path_factory.mktemp("filled")
    fill(RunStore(store), replicates=2)
    with serve(store, tmp_path_factory.mktemp("log") / "log", "--demo") as url:
        yield url


@contextmanager
def serve(store: Path, log_path: Path, *options: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "procpre_interp.cli", "app", "--headless", "--port", str(port), *options]
    with log_path.open("wb") as log:
        server = subprocess.Popen([*command, "--store", str(store)], stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://localhost:{port}"
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                        break
                except OSError:
                    time.sleep(0.2)
            yield url
        finally:
            os.killpg(server.pid, 15)
            server.wait(20)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no chromium on the PATH: `make test-app` installs it with apt-get, or install it by hand")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield launched
        launched.close()


def explorer_of(browser: Browser, address: str, **context) -> Explorer:
    page = browser.new_context(**context).new_page()
    explorer = Explorer(page, address)

    def note(kind: str, text: str) -> None:
        if not any(part in text for part in IGNORED):
            explorer.problems.append(f"{kind}: {text}")

    page.on("console", lambda message: note("console", message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: note("page", str(problem)))
    return explorer


@pytest.fixture
def explorer(browser: Browser, address: str) -> Iterator[Explorer]:
    made = explorer_of(browser, address, viewport={"width": 1400, "height": 1000})
    yield made
    made.page.context.close()
