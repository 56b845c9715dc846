"""`procpre-interp app`: the explorer, on this machine only."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from procpre_interp.commands.options import parse
from procpre_interp.terminal import beside_package, default_store


@dataclass(frozen=True, kw_only=True)
class App:
    """Open the explorer in the browser; Ctrl-C ends it. It listens on this machine only."""

    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    port: int = 8501
    """Port on localhost."""
    demo: bool = False
    """Begin with the demo that comes with the package, whatever the store holds. A switch on every page goes back."""
    headless: bool = False
    """Do not open a browser; print the address only."""


def main(arguments: list[str]) -> int:
    """Run Streamlit until it is stopped."""
    command = parse(App, "app", arguments)
    if not 0 < command.port < 65536:
        raise ValueError(f"port={command.port}; a port is in 1..65535")
    streamlit = [sys.executable, "-m", "streamlit", "run", str(main_page())]
    options = {
        "server.address": "localhost",
        "server.port": str(command.port),
        "server.headless": str(command.headless).lower(),
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    shown = ["--store", str(command.store), *(["--demo"] if command.demo else [])]
    return subprocess.run([*streamlit, *flags, "--", *shown], check=False).returncode


def main_page() -> Path:
    """The explorer's router."""
    page = beside_package("app") / "main.py"
    if not page.is_file():
        raise FileNotFoundError(f"the explorer is not installed: no {page}")
    return page
