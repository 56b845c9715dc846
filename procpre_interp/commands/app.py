"""`procpre-interp app`: the explorer, on this machine only."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from procpre_interp.commands._options import parse
from procpre_interp.core.children import child_environment
from procpre_interp.core.terminal import beside_package, default_store

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
"""What a request may call this machine. A page elsewhere whose name was made to point here has another one."""


@dataclass(frozen=True, kw_only=True)
class App:
    """Open the explorer in the browser; Ctrl-C stops it. It listens on this machine only."""

    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    port: int = 8501
    """Port on localhost."""
    demo: bool = False
    """Start with the demo that comes with the package, whatever the store holds. A switch on every page leaves it."""
    headless: bool = False
    """Do not open a browser; print the address only."""


def main(arguments: list[str]) -> int:
    """Run Streamlit until it is stopped."""
    command = parse(App, "app", arguments)
    if not 0 < command.port < 65536:
        raise ValueError(f"port={command.port}; a port is in 1..65535")
    check_store(command.store)
    page = main_page()
    options = {
        "server.address": "localhost",
        "server.port": str(command.port),
        "server.headless": str(command.headless).lower(),
        "server.enableCORS": "true",
        "server.enableXsrfProtection": "true",
        "server.enableAgentApi": "false",
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "global.developmentMode": "false",  # Streamlit's guess outside of site-packages, where it refuses a port
        "logger.hideWelcomeMessage": "true",  # and with it the advertisement on every page
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    flags += [f"--server.allowedHosts={name}" for name in LOCAL_NAMES]
    streamlit = [sys.executable, "-m", "streamlit", "run", *flags, str(page)]
    print(f"The explorer: http://localhost:{command.port} (Ctrl-C ends it)", flush=True)
    return subprocess.run(
        [*streamlit, "--", "--store", str(command.store.absolute()), *(["--demo"] if command.demo else [])],
        cwd=page.parent,  # as Streamlit takes options, and secrets, from the current folder, which may be the store
        env=child_environment(**_absolute_paths()),
        check=False,
    ).returncode


def check_store(store: Path) -> None:
    """Raise `ValueError` where the store cannot be listed; one that is not there yet is empty."""
    try:
        os.listdir(store)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        raise ValueError(f"--store {store} is a file; give the folder of the runs") from None
    except OSError as problem:
        raise ValueError(f"--store {store} cannot be read: {problem.strerror}; give another folder") from None


def _absolute_paths() -> dict[str, str]:
    """Variables whose paths count from the current folder, for a child that has another."""
    found = {}
    if paths := os.environ.get("PYTHONPATH"):
        found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    if cache := os.environ.get("PROCPRE_CACHE"):
        found["PROCPRE_CACHE"] = os.path.abspath(os.path.expanduser(cache))
    return found


def main_page() -> Path:
    """The explorer's router."""
    page = beside_package("app") / "main.py"
    if not page.is_file():
        raise FileNotFoundError(f"the explorer is not installed: no {page}")
    return page
