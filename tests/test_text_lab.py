"""The ablation lab and the probes on models of text: every kind of measurement on runs that came from a task."""

import json
from functools import partial
from pathlib import Path

import pytest

from procpre_interp.ablate import ABLATIONS, LADDER
from procpre_interp.analysis.hidden_progress import half_loss_step, hidden_progress, lead_times
from procpre_interp.cli import main
from procpre_interp.commands.ablate import DOSES
from procpre_interp.commands.patch import READ
from procpre_interp.commands.patch import WHAT as PATCHES
from procpre_interp.commands.probe import PROBES
from procpre_interp.data import TASKS
from procpre_interp.data.semantic.text import Text
from procpre_interp.patch.pruning import head_test
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.probe.linear import linear_probe
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig
from tests.explorer import PAGES, open_page

TRAIN = TrainConfig(
    steps=4, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, checkpoints=3, kernel="torch"
)
TOKENIZERS = ("byte", "bpe:300")
FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh")


def write_corpus(path: Path) -> str:
    """Sentences in which names recur, so that some windows repeat a token and what followed it."""
    path.mkdir()
    names = ("Ada", "Bo", "Cy", "Dee", "Eli", "Flo", "Gus", "Hal")
    lines = []
    for number in range(400):
        a, b, c = (names[number * k % 8] for k in (1, 3, 5))
        lines.append(json.dumps({"text": f"{a} met {b} at {number} and {c}. Then {a} met {b} again, said {c}; " * 3}))
    (path / "rows.jsonl").write_text("\n".join(lines))
    return f"files:{path}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A model of brackets, and two of text that have its attention: of bytes, and of words' parts."""
    folder = tmp_path_factory.mktemp("lab")
    corpus, found = write_corpus(folder / "corpus"), RunStore(folder / "store")
    tied = Architecture(n_layers=2, n_heads=2, d_model=8, tied=True)
    before = execute(RunConfig(task=TASKS.build("dyck", k=3, length=32), train=TRAIN, model=tied), found)
    for tokenizer in TOKENIZERS:
        config = RunConfig(
            task=Text(corpus=corpus, tokenizer=tokenizer, length=32),
            model=Architecture(n_layers=2, n_heads=2, d_model=8),
            train=TRAIN,
            parents=(Parent(run=before.id, selector="attn+ln"),),
            transfer=FRESH,
        )
        execute(config, found)
    return found


@pytest.fixture
def runs(store: RunStore, monkeypatch, tmp_path) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCPRE_STORE", str(store.path))
    monkeypatch.setattr("procpre_interp.probe.probes.linear_probe", partial(linear_probe, max_iterations=3))
    monkeypatch.setattr("procpre_interp.commands.patch.head_test", partial(head_test, steps=3, n_random=2))
    return store.query(task="text")["run"].tolist()


def rows_of(command: list[str], runs: list[str], capsys, tmp_path) -> list[dict]:
    """What a command prints about both runs; it draws a figure as well. Over tokens of two kinds it has no means."""
    html = tmp_path / "page.html"
    assert main([*command, *runs, "--format", "json", "--html", str(html)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in rows} == set(runs)
    assert "plotly-graph-div" in html.read_text()
    assert main([*command, runs[0]]) == 0
    assert main([*command, *runs]) == 2
    assert "measured on text (tokenizer=bpe:300), text (tokenizer=byte), over which means" in capsys.readouterr().err
    return rows


@pytest.mark.parametrize("what", PROBES)
def test_every_probe(what, runs, tmp_path, capsys):
    rows = rows_of(["probe", "--what", what, "--sequences", "16"], runs, capsys, tmp_path)
    assert {*PROBES[what].keys, *PROBES[what].values} <= set(rows[0])


@pytest.mark.parametrize("what", PATCHES)
@pytest.mark.parametrize("cause", Text.causes)
def test_every_patch_by_every_cause(what, cause, runs, tmp_path, capsys):
    chosen = ["--cause", cause] if "cause" in READ[what] else []
    if not chosen and cause != next(iter(Text.causes)):
        pytest.skip("has no cause to choose")
    few = ["--sequences", "6"] if "sequences" in READ[what] else []
    rows = rows_of(["patch", "--what", what, *few, *chosen], runs, capsys, tmp_path)
    assert {*PATCHES[what][1].keys, *PATCHES[what][1].values} <= set(rows[0])


def test_every_ablation(runs, tmp_path, capsys):
    rows = rows_of(["ablate", "--sequences", "16", "--draws", "1"], runs, capsys, tmp_path)
    assert {*LADDER, *(each.name for each in DOSES)} == set(ABLATIONS)
    for run in runs:
        rise = {row["damage"]: row["rise_nats"] for row in rows if row["run"] == run}
        assert {name.partition("(")[0] for name in rise} == {"intact", *ABLATIONS}
        assert rise["intact"] == 0
        for name in ("shuffle_neurons", "shuffle_heads", "low_rank_mlp(rank=16)"):
            assert abs(rise[name]) < 1e-5
        assert len(set(rise.values())) > len(rise) - 4, "damage that does nothing"


def test_what_is_damaged_can_be_chosen(runs, capsys):
    command = ["ablate", runs[0], "--sequences", "16", "--draws", "2", "--format", "json"]
    assert main([*command, "--selector", "attn"]) == 0
    said = capsys.readouterr()
    found = {row["damage"] for row in json.loads(said.out)}
    assert {"intact", "shuffle_within_rows", "noise(noise_std=0.3)"} <= found
    left_out = ("keys_only", "values_only", "unpair_neurons", "shuffle_neurons", "low_rank_mlp")
    assert found.isdisjoint(left_out)
    assert "attn has nothing to damage for " in said.err
    assert all(name in said.err for name in left_out)
    chosen = ["--ablation", "{name: low_rank_mlp, rank: 2, selector: mlp.W_in}", "keys_only"]
    assert main([*command, *chosen]) == 0
    found = [row["damage"] for row in json.loads(capsys.readouterr().out)]
    assert found == ["intact", *["low_rank_mlp(selector=mlp.W_in, rank=2)"] * 2, *["keys_only"] * 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ablation", "keys"], "unknown ablation 'keys'. Did you mean 'keys_only'?"),
        (["--ablation", "noise"], "missing noise_std"),
        (["--ablation", "[1]"], "give a name, or YAML such as"),
        (["--ablation", "keys_only", "--selector", "attn"], "names nothing of mlp.values"),
        (["--selector", "ln.x"], "unknown component 'ln.x'"),
        (["--draws", "0"], "draws=0; there must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options, message, runs, capsys):
    assert main(["ablate", runs[0], "--sequences", "4", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert message in line


def test_ablations_are_listed_with_what_they_keep(capsys):
    assert main(["ablate", "--list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in ABLATIONS)


def test_progress_leads_over_half_of_the_fall_of_the_loss(store: RunStore):
    """Nobody breaks through on text, whose loss falls smoothly."""
    opened = [store.open(run) for run in store.query(task="text")["run"]]
    table = hidden_progress(opened, store, n_sequences=16)
    for run in opened:
        second = table.loc[(table["run"] == run.id) & (table["phase"] == 2), "breakthrough_step"]
        assert set(second) == {half_loss_step(run.history())} <= {2.0, 4.0}
    assert table.loc[table["phase"] == 1, "breakthrough_step"].isna().all()
    assert set(lead_times(table)["phase"]) == {2}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_explorer(page, store: RunStore, monkeypatch):
    app = open_page(monkeypatch, store.path, page)
    assert [error.value for error in app.error] == []
