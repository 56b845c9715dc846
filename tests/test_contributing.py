"""What CONTRIBUTING.md adds to the package, added here for as long as a test lasts."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from procpre_interp.ablate.ablation import ABLATIONS
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, check_task
from procpre_interp.data.tokens import token_names
from procpre_interp.store.store import RunStore
from procpre_interp.views import exhibits, full_report
from procpre_interp.views.html_report import write_report
from tests import oracles, test_ablate, test_counterfactual
from tests.checks import check_against_oracle
from tests.contributing import example
from tests.explorer import APP, DEMO, charts, check, said, title

DURATIONS = "procpre_interp.views.exhibits.durations"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    for registry, name in ((TASKS, "maximum"), (ABLATIONS, "roll_within_tensors")):
        registry._classes.pop(name, None)


def perform(text: str, module: ModuleType | None = None, **more: Any) -> dict[str, Any]:
    """What the block with this text defines, run as a part of the module."""
    members = {**(vars(module) if module else {}), **more, "__name__": __name__}
    exec(compile(example(text), "CONTRIBUTING.md", "exec"), members)
    return members


def test_a_task_in_the_package(monkeypatch):
    perform("class Maximum")
    task = TASKS.build("maximum", vocab=10, length=6, min_length=2)
    check_task(task)
    assert token_names(task, [3, 10, 11]) == ["3", "|", "·"]
    oracle = perform("def maximum", oracles)["maximum"]
    monkeypatch.setitem(oracles.ORACLES, "maximum", oracle)
    check_against_oracle(task.batch(200, generator=stream(0, "maximum")), task, vocab=10)
    record = perform("def check_record", test_counterfactual)["check_record"]
    monkeypatch.setitem(test_counterfactual.CHECKS, "maximum", record)
    pairs = task.counterfactual("record", 200, generator=stream(0, "record"))
    test_counterfactual.check_pairs(task, "record", pairs, 200, vocab=10)


def test_a_weight_control_in_the_package(monkeypatch):
    perform("class RollWithinTensors")
    monkeypatch.setitem(test_ablate.KEEPS, "roll_within_tensors", None)
    perform('KEEPS["roll_within_tensors"]', KEEPS=test_ablate.KEEPS)
    for config in (test_ablate.CONFIG, test_ablate.TIED):
        test_ablate.test_it_keeps_what_it_says_and_nothing_else("roll_within_tensors", config)
        for selector in test_ablate.SELECTORS:
            test_ablate.test_pure_repeatable_and_within_the_selector("roll_within_tensors", selector, config)
    test_ablate.test_dtype_stays_and_gradients_are_left_behind("roll_within_tensors")


@pytest.fixture
def durations(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The exhibit of the example, as a module of the package."""
    module = ModuleType(DURATIONS)
    exec(compile(example("def durations"), "durations.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, DURATIONS, module)
    monkeypatch.setattr(exhibits, "durations", module, raising=False)
    return module


def test_a_page(durations, monkeypatch, tmp_path: Path):
    line, after = example("st.Page("), '        st.Page("questions/runs.py", title="Runs"),\n'
    app = tmp_path / "app"
    shutil.copytree(APP / "questions", app / "questions")
    shutil.copy(APP / "icon.svg", app)
    router = (APP / "main.py").read_text(encoding="utf-8")
    assert router.count(after) == 1
    (app / "main.py").write_text(router.replace(after, f"{after}        {line.strip()},\n"))
    page = "questions/how_long_did_runs_take.py"
    (app / page).write_text(example("stores.open_page("))
    monkeypatch.setenv("PROCPRE_STORE", str(DEMO))
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.syspath_prepend(APP)  # the modules that pages share are those of the explorer itself
    shown = check(AppTest.from_file(str(app / "main.py"), default_timeout=60).switch_page(page).run())
    assert [each.value for each in shown.title] == ["How long did runs take?"]
    assert "took longest: " in said(shown)
    assert len(charts(shown)) == 1
    assert title(shown, 0) == "How long did runs take?"
    (tmp_path / "none").mkdir()
    monkeypatch.setattr("stores.DEMO", tmp_path / "none")
    monkeypatch.setenv("PROCPRE_STORE", str(tmp_path / "none"))
    empty = check(AppTest.from_file(str(app / "main.py"), default_timeout=60).switch_page(page).run())
    assert "No finished runs here yet" in said(empty)


def test_the_pages_section_and_test(durations, tmp_path: Path):
    perform("def test_the_slowest_task_by_hand")["test_the_slowest_task_by_hand"]()
    section = perform("def _durations", full_report, durations=durations)["_durations"]
    path = write_report(tmp_path / "report.html", "A report", list(section(RunStore(DEMO))))
    assert "How long did runs take?" in path.read_text(encoding="utf-8")
    assert list(section(RunStore(tmp_path / "none"))) == []
