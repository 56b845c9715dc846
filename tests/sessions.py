"""The explorer as browsers have it: a real server, and sessions over websockets, as many at once as wanted."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
"""Longest wait for a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a session was shown at last."""

    figures: tuple[dict, ...]
    """As plotly is given them, in the order of the page."""
    problems: tuple[str, ...]
    """Tracebacks and red boxes."""


@contextmanager
def explorer(store: Path) -> Iterator[str]:
    """The address, without http, of an explorer on a store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "procpre_interp.cli", "app", "--headless", "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [*command, "--store", str(store)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        address, deadline = f"localhost:{port}", time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/_stcore/health", timeout=2):
                    break
            except OSError:
                assert time.monotonic() < deadline, "the explorer does not answer"
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def look(address: str, page: str, query: dict[str, str]) -> Page:
    """A page in a session of its own."""
    options = {"max_size": None, "open_timeout": SECONDS, "ping_interval": None}  # a busy server answers late
    with connect(f"ws://{address}/_stcore/stream", **options) as session:
        return _run(session, page, query)


def look_at_once(address: str, asked: Sequence[tuple[str, dict[str, str]]]) -> list[Page]:
    """A session for each page and query, all running at the same time."""
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda each: look(address, *each), asked))


def forget_results(address: str) -> None:
    """Empty the server's caches, so that everything is computed again."""
    with connect(f"ws://{address}/_stcore/stream") as session:
        session.send(BackMsg(clear_cache=True).SerializeToString())
        session.send(BackMsg(app_heartbeat=True).SerializeToString())
        time.sleep(0.5)


def _run(session: ClientConnection, page: str, query: dict[str, str]) -> Page:
    state = ClientState(query_string=urlencode(query), page_name=page)
    session.send(BackMsg(rerun_script=state).SerializeToString())
    shown: dict[tuple[int, ...], Element] = {}
    while True:
        data = session.recv(timeout=SECONDS)
        assert isinstance(data, bytes)
        message = ForwardMsg.FromString(data)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            shown = {}
        elif kind == "delta" and message.delta.HasField("new_element"):
            shown[tuple(message.metadata.delta_path)] = message.delta.new_element
        elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
            break
    elements = [shown[path] for path in sorted(shown)]
    tracebacks = [each.exception.message for each in elements if each.HasField("exception")]
    boxes = [each.alert.body for each in elements if each.HasField("alert") and each.alert.format == Alert.ERROR]
    figures = [json.loads(each.plotly_chart.spec) for each in elements if each.HasField("plotly_chart")]
    return Page(tuple(figures), (*tracebacks, *boxes))
