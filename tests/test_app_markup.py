"""Text of files and addresses is shown as it stands, on every page: no markup of its own, no image, no link."""

import fcntl
import importlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from procpre_interp.claims.claim_json import claim_to_json
from procpre_interp.claims.files import table_name
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.claims import load_claims
from tests.explorer import APP, DEMO, PAGES, check, open_page

HOSTILE = "![x](http://evil/x.png) [a](javascript:alert(1)) <b>b</b> :red[r] $x^2$ **w** _v_ ~~u~~ a@b.c"
MARKUP = re.compile(r"(?<!\\)(?:\]\(|<b>|:red|\$x|\*\*w|_v_|~~u|://evil|@b)")
"""What is left of it where nothing escaped it."""
TABS = {
    "did_transfer_help": ["Accuracy", "Learning curves", "Time to breakthrough", "Cost"],
    "where_does_it_live": ["Map", "All methods", "Table"],
    "what_survives_damage": ["Shuffled weights", "Noise", "Why transfers fail"],
    "can_anything_cheaper": ["Share of the gain", "Entropy and breakthrough", "The search"],
    "does_it_help_on_real_text": ["Claims", "Fair sweeps"],
    "do_the_claims_hold": ["Contrasts", "Replicates", "Runs"],
    "run_something": ["20260101-000000-train-00ff", "20260101-000001-train-00ff"],
    "runs": ["Curves", "Numbers", "Config", "Lineage", "Environment", "Diagnosis", "Files"],
}


def tainted(value: Any) -> Any:
    """The value with markup behind every text of more than one word."""
    if isinstance(value, dict):
        return {key: tainted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tainted(item) for item in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) and " " in value else value


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo and all claims, with markup in their texts, a damaged run, one that is being written, and two jobs."""
    path = tmp_path_factory.mktemp("hostile") / "store"
    shutil.copytree(DEMO, path)
    for file in (path / "tables").glob("*.json"):
        about = json.loads(file.read_bytes())
        kept = {key: about[key] for key in ("config", "protocol_name") if key in about}
        file.write_text(json.dumps(tainted(about) | kept))
        table = pd.read_parquet(file.with_suffix(".parquet"))
        table["label"] = table["label"] + f" {HOSTILE}"
        table.to_parquet(file.with_suffix(".parquet"))
    store = RunStore(path)
    for name in [name for name in store.tables() if not (path / "tables" / f"{name}.json").exists()]:
        stored = store.read_table(name)
        kept = {key: stored.metadata[key] for key in ("config", "protocol_name") if key in stored.metadata}
        frame = stored.frame.assign(label=stored.frame["label"] + f" {HOSTILE}")
        store.write_table(name, frame, tainted(stored.metadata) | kept)
    for claim in load_claims()[0].values():
        fields = claim_to_json(claim)
        kept = {key: fields[key] for key in ("verdict", "created", "contrasts", "page", "measures", "tables")}
        for row in fields["tables"].get("controls", []):
            row |= tainted({key: row[key] for key in ("keeps", "destroys")})
        RunStore(path).write_table(table_name(claim), claim.cells, tainted(fields) | kept)
    (path / "tables" / "broken.json").write_text(json.dumps({"title": HOSTILE}))
    (path / "tables" / "broken.parquet").write_text(HOSTILE)
    damaged = path / "runs" / "damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text(json.dumps({HOSTILE: {"bytes": 3, "sha256": ""}}))
    writing = path / "partial" / "writing"
    writing.mkdir(parents=True)
    (writing / "config.yaml").write_text(json.dumps({"task": {"name": HOSTILE}, "seed": HOSTILE}))
    ended, running = (path / "jobs" / f"20260101-00000{number}-train-00ff" for number in range(2))
    for job in (ended, running):
        job.mkdir(parents=True)
        (job / "job.json").write_text(json.dumps({"form": "train", "values": {"Task": HOSTILE}, "started": HOSTILE}))
    (ended / "end.json").write_text(json.dumps({"exit_code": 0, "ended": HOSTILE}))
    with (running / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def markdown_of(app: AppTest) -> list[str]:
    """What a page gives to its markdown: bodies, labels and tooltips of every element but plain text, code and data."""
    found: list[str] = []
    plain = {"text", "code", "arrow_data_frame", "plotly_chart"}

    def visit(block: Any) -> None:
        for child in getattr(block, "children", {}).values():
            proto = getattr(child, "proto", None)
            if getattr(child, "type", "") not in plain:
                found.extend(str(getattr(proto, field, "") or "") for field in ("body", "label", "help", "text"))
                for kind in ("expandable", "popover", "tab"):
                    found.append(str(getattr(getattr(proto, kind, None), "label", "")))
            visit(child)

    visit(app.main)
    return found


def check_markup(app: AppTest) -> None:
    for text in markdown_of(check(app)):
        bare = re.sub(r"`[^`]*`", "", text)  # code is shown as it stands
        assert not MARKUP.search(bare), text


@pytest.mark.parametrize("page", PAGES)
def test_no_text_of_a_file_is_markup(monkeypatch, hostile: Path, page: str):
    seen = ""
    for tab in TABS.get(Path(page).stem, [""]):
        query: dict[str, str | list[str]] = {"tab": tab, "job": tab} if tab else {}
        if Path(page).stem == "runs":
            query["run"] = ["damaged", "f00f71212a994232"]
        app = open_page(monkeypatch, hostile, page, **query)
        check_markup(app)
        seen += " ".join(markdown_of(app))
    if Path(page).stem in ("did_transfer_help", "where_does_it_live", "do_the_claims_hold", "run_something"):
        assert "evil" in seen, "the markup is not on the page, so nothing was tested"


@pytest.mark.parametrize("page", PAGES)
def test_no_text_of_an_address_is_markup(monkeypatch, hostile: Path, page: str):
    keys = ("experiment", "run", "other", "claim", "contrast", "task", "score", "at", "tokens", "condition", "tab")
    app = open_page(monkeypatch, hostile, page, **dict.fromkeys((*keys, "job", "recipes", "outcome", "part"), HOSTILE))
    check_markup(app)


def test_a_damaged_table_is_named_without_markup(monkeypatch, hostile: Path):
    app = open_page(monkeypatch, hostile, "questions/did_transfer_help.py", experiment="broken")
    check_markup(app)


TEXTS = [HOSTILE, "# a", "- a", "+ a", "1. a", "1) a", "---", "===", "> a", "[a]: http://evil", "![a][b]", ":smile:"]


@pytest.fixture
def escaped(monkeypatch) -> Callable[[str], str]:
    monkeypatch.syspath_prepend(APP)
    return importlib.import_module("markup").escaped


@pytest.mark.parametrize("text", [*TEXTS, "\\", "`code`", "a | b"])
def test_what_is_escaped_reads_as_it_stood(escaped, text: str):
    shown = escaped(text)
    assert re.sub(r"\\(.)", r"\1", shown) == text
    assert shown != text


def test_prose_stays_as_it_is(escaped):
    prose = "Carries the gain: ln (+24.3 [2.9, 8]), n = 6; -5 %, not 3.5! A, B: 12."
    assert escaped(prose) == prose
