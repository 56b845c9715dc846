"""The explorer as a real server: how it starts, and whom it answers. One server, in a folder that is up to no good."""

import http.client
import os
import pty
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from procpre_interp.cli import main
from tests.hostile import plant

SECONDS = 60
LAUNCH = "import sys\nfrom procpre_interp.cli import main\nsys.exit(main())\n"
CONFIG = """
[server]
enableCORS = false
enableAgentApi = true
allowedHosts = ["*"]
[theme]
primaryColor = "#ff0001"
"""


@dataclass(frozen=True)
class Server:
    port: int
    marker: Path
    home: Path
    output: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`procpre-interp app` as one starts it for the first time: a terminal, a new home, nothing typed."""
    folder = tmp_path_factory.mktemp("explorer")
    store, home, output, launch = (folder / name for name in ("store", "home", "output", "procpre-interp"))
    (store / ".streamlit").mkdir(parents=True)
    (store / ".streamlit" / "config.toml").write_text(CONFIG)
    home.mkdir()
    launch.write_text(LAUNCH)  # as a console script: not `python -m`, which would itself put the folder first
    marker = plant(store)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HOME": str(home), "BROWSER": "true"}
    environment = {name: value for name, value in environment.items() if not name.startswith("STREAMLIT_")}
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(launch), "app", "--store", ".", "--port", str(port)],
            cwd=store,
            env=environment,
            stdin=theirs,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and process.poll() is None and not is_up(port):
            time.sleep(0.1)
        assert is_up(port), output.read_text()
        yield Server(port, marker, home, output)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(20)
        os.close(ours)
        os.close(theirs)


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=10):
            return True
    except OSError:
        return False


def first_page(port: int, host: str, origin: str | None) -> str:
    """What a session that is opened under these names is sent, up to the end of its first page."""
    parts: list[str] = []
    with (
        socket.create_connection(("localhost", port), timeout=10) as raw,
        connect(f"ws://{host}/_stcore/stream", sock=raw, origin=origin, open_timeout=10, max_size=None) as session,
    ):
        session.send(BackMsg(rerun_script={"query_string": ""}).SerializeToString())
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            message = ForwardMsg.FromString(session.recv(timeout=SECONDS))
            parts.append(str(message))
            if message.WhichOneof("type") == "script_finished":
                break
    return "\n".join(parts)


def test_the_first_start_asks_and_says_nothing(server: Server):
    said = server.output.read_text()
    assert f"http://localhost:{server.port}" in said
    for word in ("mail", "usage", "telemetry", "skills", "agents"):
        assert word not in said.lower()


def test_a_page_and_nothing_of_the_current_folder(server: Server):
    page = first_page(server.port, f"localhost:{server.port}", f"http://localhost:{server.port}")
    assert "Did transfer help?" in page
    assert "Traceback" not in page
    assert not server.marker.exists(), server.marker.read_text()
    assert "ff0001" not in page, "an options file of the current folder counts"
    assert 'favicon: "data:image/svg+xml' in page
    assert "recommend_skills_install: true" not in page


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_names_of_this_machine(server: Server, host: str):
    assert "script_finished" in first_page(server.port, f"{host}:{server.port}", f"http://{host}:{server.port}")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:{port}", "http://evil.example:{port}"),
        ("evil.example:{port}", None),
        ("localhost.evil.example:{port}", "http://localhost.evil.example:{port}"),
        ("localhost:{port}", "http://evil.example:{port}"),
        ("localhost:{port}", "http://localhost.evil.example:{port}"),
        ("localhost:{port}", "null"),
    ],
)
def test_pages_from_elsewhere_get_no_session(server: Server, host: str, origin: str | None):
    with pytest.raises(InvalidStatus) as refused:
        first_page(server.port, host.format(port=server.port), origin and origin.format(port=server.port))
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("path", ["mcp", "interact"])
def test_programs_get_no_session(server: Server, path: str):
    connection = http.client.HTTPConnection("localhost", server.port, timeout=10)
    connection.request("POST", f"/_stcore/agent/{path}", "{}", {"Content-Type": "application/json"})
    assert b"not_available" in connection.getresponse().read()
    connection.close()


def test_stores_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "file").write_text("")
    assert main(["app", "--store", str(tmp_path / "file")]) == 2
    assert main(["app", "--store", str(tmp_path / "file" / "below")]) == 2
    with monkeypatch.context() as patch:  # as root may list any folder
        patch.setattr(os, "listdir", refuse)
        assert main(["app", "--store", str(tmp_path)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "file is a file" in first
    assert "below is a file" in second
    assert "cannot be read: Permission denied" in third
