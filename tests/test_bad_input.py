"""Ten thousand bad inputs of every kind: each is refused in one line or taken, and nothing else comes of it.

Command lines, YAML, selectors, run folders, corpora, foreign checkpoints, and addresses of the explorer. The fast suite
tries five hundred, always the same ones.
"""

import contextlib
import io
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings

from procpre_interp.cli import main
from procpre_interp.commands._run_one import Training, as_default, read_config
from procpre_interp.commands._text_defaults import with_sweep_defaults
from procpre_interp.core import checksums, messages, selectors
from procpre_interp.core.config import from_dict, to_yaml
from procpre_interp.core.plain_values import parse_yaml
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, from_huggingface, load_weights, save_weights, select
from procpre_interp.model.huggingface import save_huggingface
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import load_model, load_task, prepare
from procpre_interp.pipeline.imported import import_model
from procpre_interp.store.run import OWN_FILES
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.plan import plan
from procpre_interp.sweep.size import describe_size
from tests import bad_input
from tests.bad_input import changed, check_message, damaged, watched
from tests.explorer import DEMO, PAGES, open_page

REFUSALS = (ValueError, OSError)
"""What the library raises for a bad input, and the command line prints."""
RUNS = ("f00f71212a994232", "01274ba918921944")
SWEEPS = Path(__file__).parents[1] / "experiments" / "sweeps"


class Kind(NamedTuple):
    """One kind of input."""

    fast: int
    """Cases in the fast suite."""
    slow: int
    cases: st.SearchStrategy[Any]
    attempt: Callable[[Any, Path], None]
    """Does with a case, in a folder of its own, all that is done with such an input; an error that escapes fails."""


def tried(case: Any, attempt: Callable[[Any], object]) -> None:
    """Take the case, or refuse it in a clear line."""
    try:
        attempt(case)
    except REFUSALS as problem:
        check_message(str(problem))


# ---- Command lines ---------------------------------------------------------------------------------------------------

TINY = "--train.steps 2 --train.batch-size 4 --train.evaluate-examples 4 --train.warmup-steps 1 --model.d-model 8"
COMMAND_LINES = tuple(
    line.split()
    for line in (
        f"train --task dyck --task.k 2 --task.length 8 --seed 1 {TINY}",
        f"train --config run.yaml --intervene rewind --train.freeze attn --train.kernel torch {TINY}",
        f"train --task mixture --part sort --part reverse {TINY}",
        f"train --task text --task.corpus files:text --task.tokenizer characters --epochs 1 {TINY}",
        f"transfer --parent {RUNS[0]} --components attn+ln --task haystack {TINY}",
        "sweep sweep.yaml --count --replicates 2 --minutes 1 --outcome accuracy",
        "sweep sweep.yaml --engine processes --workers 1 --out runs",
        "runs --where task=haystack status=finished --format csv",
        "tasks --name dyck --examples 2 --seed 3",
        "corpora files:text --files",
        f"export {RUNS[0]} --to exported --stage finished",
        "import model --task dyck",
        f"transfer --parent {RUNS[0]} --components blocks --transfer.layers tile --transfer.width corner {TINY}",
        "claims dyck_teaches_recall --format json --store runs",
        "sweep sweep.yaml --out runs --engine serial --mirror copied",
        "store push copied --store runs",
        "store pack packed.tar.xz --store runs",
        "store unpack packed.tar.xz --store runs",
        f"report {RUNS[0]} --out report.html",
        f"diagnose {RUNS[0]}",
        "savings components-8f8b2195",
        f"initialise {RUNS[0]}",
        f"probe {RUNS[0]} --what attention --sequences 2 --format csv",
        f"ablate {RUNS[0]} --sequences 2",
        f"patch {RUNS[0]} --cause query --sequences 2",
        "reproduce --quick --replicates 1 --out runs",
        "app --port 8501 --store runs",
        "--print-completion bash",
        "--version",
    )
)


def _is_argument(text: str) -> bool:
    """Whether a system hands this over, and it names no place outside of the folder, which a user may well name."""
    return "\x00" not in text and "\ud800" not in text and not text.startswith("/") and ".." not in text


ARGUMENTS = (
    bad_input.scalars.map(lambda value: str(value) if not isinstance(value, int) or abs(value) < 10**100 else "1e400")
    | st.binary(max_size=6).map(os.fsdecode)
    | st.sampled_from([word for line in COMMAND_LINES for word in line])
).filter(_is_argument)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    words = list(draw(st.sampled_from(COMMAND_LINES)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(words) - 1))
        match draw(st.sampled_from(("value", "value", "value", "insert", "remove", "double"))):
            case "value":
                words[place] = draw(ARGUMENTS)
            case "insert":
                words.insert(place, draw(ARGUMENTS))
            case "remove" if len(words) > 1:
                del words[place]
            case _:
                words[place:place] = words[place : place + 2]
    return words


def run_command_line(arguments: list[str], folder: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    said = err.getvalue()
    assert "Traceback" not in said + out.getvalue()
    assert code in (0, 1, 2, 130), code
    if code in (1, 2) and arguments:
        last = said.strip().splitlines()[-1] if said.strip() else out.getvalue()
        assert last, "nothing is said"
        assert len(last) < 2 * messages.LONGEST, last[:500]
        if said:
            check_message(last)


# ---- YAML ------------------------------------------------------------------------------------------------------------

RUN = {
    "task": {"name": "dyck", "k": 2, "length": 8},
    "seed": 1,
    "model": {"n_layers": 1, "n_heads": 2, "d_model": 8, "tied": True},
    "train": {
        "steps": 5, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "evaluate_examples": 4, "threads": 1,
        "freeze": "attn", "kernel": "torch", "interventions": [{"name": "rewind", "selector": "mlp", "steps": [0, 2]}],
    },
}  # fmt: skip
PARENT = {"run": RUNS[0], "selector": "attn+ln", "ablation": {"name": "noise", "noise_std": 0.1, "selector": "attn"}}
TRANSFER = {
    "task": {"name": "mixture", "tasks": [{"name": "sort", "length": 4}, {"name": "noisy", "task": {"name": "set"}}]},
    "parents": [PARENT],
    "transfer": {"positions": "carry", "token_embedding": "average"},
    "train": RUN["train"],
}  # fmt: skip


def small_sweeps() -> list[Any]:
    """The sweeps of the package, of two replicates and on a small text."""
    large = re.compile("corpus: (docstrings|python-stdlib|wikipedia-leads)")
    contents = (large.sub("corpus: files:text", path.read_text()) for path in sorted(SWEEPS.glob("*.yaml")))
    return [parse_yaml(content) | {"replicates": 2} for content in contents]


@st.composite
def yaml_texts(draw: st.DrawFn, trees: list[Any]) -> bytes:
    tree = draw(changed(draw(st.sampled_from(trees))))
    try:
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=draw(st.booleans()))
    except ValueError:  # Python writes no integers of more than 4300 digits
        text = "seed: 0x" + "f" * 5_000
    content = text.encode(errors="replace")
    return draw(st.just(content) | damaged(content) | st.just(content + content))


def read_run_file(content: bytes, folder: Path) -> None:
    path = folder / "case.yaml"
    path.write_bytes(content)
    store = RunStore(folder / "runs")

    def attempt(path: Path) -> None:
        fields = read_config(path)
        as_default(Training, dict(fields))
        fields.pop("store", None)
        config = from_dict(RunConfig, fields)
        assert from_dict(RunConfig, parse_yaml(to_yaml(config))).run_id == config.run_id
        prepare(config.resolve(), store)

    tried(path, attempt)


def read_sweep_file(content: bytes, folder: Path) -> None:
    path = folder / "case.yaml"
    path.write_bytes(content)
    store = RunStore(folder / "runs")

    def attempt(path: Path) -> None:
        fields = read_config(path)
        sweep = with_sweep_defaults(from_dict(Sweep, fields, "sweep"), fields)
        if sweep.fair is None:
            describe_size(plan(sweep, store), store)

    tried(path, attempt)


# ---- Selectors -------------------------------------------------------------------------------------------------------

WORDS = (
    "all", "attn", "mlp", "ln", "pos", "embed", "blocks", "none", "head", "W_Q", "b_O", "w", "sharpest", "circuit",
    "random_like", "0", "1", "99", "9" * 5_000, "-1", "٣",
)  # fmt: skip
SELECTORS = (
    st.lists(st.sampled_from(WORDS) | bad_input.texts, min_size=1, max_size=5).flatmap(
        lambda words: st.lists(st.sampled_from(list(".+-, ")), min_size=len(words), max_size=len(words)).map(
            lambda signs: "".join(word + sign for word, sign in zip(words, signs))[:-1]
        )
    )
    | bad_input.texts
    | st.sampled_from(("+".join(["attn"] * 2_000), "-".join(["all"] * 2_000), "a." * 10_000, "blocks.0." * 2_000))
)
SHAPE = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=8, d_vocab=6)
HEADS = selectors.head_terms(2, 2)


def select_weights(selector: str, folder: Path) -> None:
    tried(selector, selectors.canonical_selector)
    tried(selector, lambda each: [selectors.place(term.name) for term in selectors.parse_selector(each)])
    tried(selector, lambda each: select(SHAPE, selectors.name_heads(each, lambda _: HEADS)))
    tried(selector, lambda each: select(SHAPE, selectors.with_all_heads(each)))


# ---- Run folders -----------------------------------------------------------------------------------------------------

SMALL_FILES = ("config.yaml", "summary.json", "environment.json", "manifest.json")


class Damage(NamedTuple):
    file: str
    content: bytes | None
    """None: a link to a secret."""
    sealed: bool


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    name = draw(st.sampled_from((*SMALL_FILES, *SMALL_FILES, "history.parquet", "weights")))
    folder = DEMO / "runs" / RUNS[0]
    path = next((folder / "weights").iterdir()) if name == "weights" else folder / name
    content = path.read_bytes()
    form = draw(st.sampled_from(("tree", "tree", "bytes", "link")))
    if form == "link":
        return Damage(path.relative_to(folder).as_posix(), None, False)
    if form == "tree" and name in SMALL_FILES:
        tree = draw(changed(parse_yaml(content) if name.endswith("yaml") else json.loads(content)))
        try:
            text = yaml.safe_dump(tree) if name.endswith("yaml") else json.dumps(tree)
        except ValueError:
            text = "1" * 5_000
        return Damage(name, text.encode(errors="replace"), draw(st.booleans()) or name != "manifest.json")
    return Damage(path.relative_to(folder).as_posix(), draw(damaged(content)), draw(st.booleans()))


def open_damaged_run(case: Damage, folder: Path) -> None:
    store = RunStore(folder / "odd")
    run = store.path / "runs" / RUNS[0]
    run.parent.mkdir(parents=True)
    shutil.copytree(DEMO / "runs" / RUNS[0], run)
    target = run / case.file
    if case.content is None:
        target.unlink()
        target.symlink_to(folder / "secret.txt")
    else:
        target.write_bytes(case.content)
    if case.sealed and case.file != checksums.MANIFEST:
        checksums.seal(run, OWN_FILES)
    store.query()
    tried(store, lambda store: store.open(RUNS[0]))

    def attempt(store: RunStore) -> None:
        opened = store.open(RUNS[0], verify=False)
        assert str(opened)
        assert opened._repr_html_()
        for read in (opened.history, opened.examples, lambda: load_task(opened), lambda: load_model(opened)):
            tried(read, lambda read: read())

    tried(store, attempt)
    run_command_line(["runs", "--store", str(store.path)], folder)


# ---- Corpora ---------------------------------------------------------------------------------------------------------

DOCUMENT = "to be or not to be, that is the question. " * 3


def _parquet() -> bytes:
    import pandas as pd

    buffer = io.BytesIO()
    pd.DataFrame({"text": [DOCUMENT, "", None, "x"], "n": [1, 2, 3, 4]}).to_parquet(buffer)
    return buffer.getvalue()


CONTENTS = {
    ".txt": f"{DOCUMENT}<|endoftext|>{DOCUMENT}".encode(),
    ".jsonl": "".join(json.dumps({"text": f"{i} {DOCUMENT}"}) + "\n" for i in range(20)).encode(),
    ".parquet": _parquet(),
    ".py": b"def f():\n    'Doc.'\n    return 1\n",
}
LINES = st.lists(
    bad_input.values.map(lambda value: {"text": value})
    | bad_input.values
    | st.just({"text": "\ud800", "content": DOCUMENT}),
    max_size=4,
)


@st.composite
def corpora(draw: st.DrawFn) -> dict[str, bytes]:
    files = {}
    for _ in range(draw(st.integers(0, 3))):
        suffix = draw(st.sampled_from(tuple(CONTENTS)))
        name = "".join(sign for sign in draw(bad_input.texts)[:20] if sign not in "/\x00\ud800")
        name = name.replace("secret", "")
        content = CONTENTS[suffix]
        if suffix == ".jsonl" and draw(st.booleans()):
            lines = draw(LINES)
            with contextlib.suppress(ValueError):
                content = "\n".join(map(json.dumps, lines)).encode()
            content += draw(st.sampled_from((b"", b"[" * 100_000, b"1" * 5_000, b'{"text": ' + b"[" * 3_000)))
        files[f"{name or 'x'}{suffix}"] = draw(st.just(content) | damaged(content) | st.binary(max_size=50))
    return files


def read_corpus(files: dict[str, bytes], folder: Path) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    for name, content in files.items():
        (corpus / name).write_bytes(content)
    run_command_line(["corpora", f"files:{corpus}", "--files"], folder)

    def attempt(path: Path) -> None:
        TASKS.build("text", corpus=f"files:{path}", tokenizer="bytes", length=8).prepare()

    tried(corpus, attempt)


# ---- Foreign checkpoints ---------------------------------------------------------------------------------------------


class Checkpoint(NamedTuple):
    config: bytes
    header: bytes
    """Header of model.safetensors, in JSON."""
    length: int | None
    """What its first eight bytes say of it. Default: what it has."""
    shards: bytes | None
    """The index of shards, where there are any."""
    own: bool
    """Whether the file is also read as one of ours, with a config in its header."""


def _example() -> tuple[Any, Any, bytes]:
    """Config, header and data of a tiny GPT-2 as save_pretrained writes it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model = HookedTransformer(SHAPE, generator=torch.Generator().manual_seed(0))
        save_huggingface(model, Path(folder), end=None, pad=None)
        content = Path(folder, "model.safetensors").read_bytes()
        config = json.loads(Path(folder, "config.json").read_bytes())
    (size,) = struct.unpack("<Q", content[:8])
    return config, json.loads(content[8 : 8 + size]), content[8 + size :]


def _own_example() -> tuple[Any, bytes]:
    """Header and data of one of our own checkpoints; its config as a tree."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model = HookedTransformer(SHAPE, generator=torch.Generator().manual_seed(0))
        save_weights(model, Path(folder, "own.safetensors"))
        content = Path(folder, "own.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["model_config"] = json.loads(header["__metadata__"]["model_config"])
    return header, content[8 + size :]


CONFIG, HEADER, DATA = _example()
OWN_HEADER, OWN_DATA = _own_example()


def as_json(tree: Any) -> bytes:
    try:
        return json.dumps(tree).encode()
    except ValueError:
        return b"1" * 5_000


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    own = draw(st.booleans())
    if own:
        header = draw(changed(OWN_HEADER))
        with contextlib.suppress(TypeError, KeyError):
            written = as_json(header["__metadata__"]["model_config"]).decode()
            header = {**header, "__metadata__": {**header["__metadata__"], "model_config": written}}
    else:
        header = draw(st.just(HEADER) | changed(HEADER))
    index = st.builds(
        lambda names: {"weight_map": names}, st.dictionaries(bad_input.texts, bad_input.values, max_size=3)
    )
    return Checkpoint(
        config=as_json(draw(st.just(CONFIG) | changed(CONFIG))),
        header=as_json(header),
        length=draw(st.none() | st.sampled_from((0, 1, 8, 2**20, 2**40, 2**63, 2**64 - 1))),
        shards=draw(st.none() | (index | bad_input.values).map(as_json)),
        own=own,
    )


def read_checkpoint(case: Checkpoint, folder: Path) -> None:
    model = folder / "foreign"
    model.mkdir()
    (model / "config.json").write_bytes(case.config)
    size = struct.pack("<Q", len(case.header) if case.length is None else case.length)
    content = size + case.header + (OWN_DATA if case.own else DATA)
    if case.shards is None or case.own:
        (model / "model.safetensors").write_bytes(content)
    else:
        (model / "model.safetensors.index.json").write_bytes(case.shards)
        (model / "model-1.safetensors").write_bytes(content)
    if case.own:
        tried(model / "model.safetensors", load_weights)
    else:
        tried(model, from_huggingface)
    tried(model, lambda path: import_model(path, RunStore(folder / "imports")))


# ---- Addresses -------------------------------------------------------------------------------------------------------

KEYS = (
    "experiment", "run", "other", "claim", "contrast", "task", "score", "at", "tokens", "condition", "tab", "job",
    "demo", "recipes", "outcome", "part", "beside", "all_heads", "by_position", "everywhere", "search", "only_status",
    "only_seed", "only_task", "layer", "head", "cause", "sequence", "seed", "table", "command", "sweep", "list",
    "length",
)  # fmt: skip


def in_address(value: object) -> str:
    """A value as an address can have it."""
    text = "9" * 400 if isinstance(value, int) and abs(value) > 10**100 else str(value)
    return text.replace("\ud800", "") or "x"


ADDRESSES = st.tuples(
    st.sampled_from(PAGES),
    st.dictionaries(
        (st.sampled_from(KEYS) | bad_input.texts).map(in_address),
        (bad_input.scalars | st.sampled_from(RUNS)).map(in_address)
        | st.lists(bad_input.texts.map(in_address), min_size=2, max_size=3),
        max_size=5,
    ),
)


def open_address(case: tuple[str, dict[str, str | list[str]]], folder: Path) -> None:
    page, query = case
    with pytest.MonkeyPatch.context() as patch:
        app = open_page(patch, folder / "runs-of-demo", page, **query)
    for error in app.error:
        check_message(error.value)


# ---- All of them -----------------------------------------------------------------------------------------------------

KINDS = {
    "command lines": Kind(15, 1_500, command_lines(), run_command_line),
    "run files": Kind(70, 1_500, yaml_texts([RUN, TRANSFER]), read_run_file),
    "sweep files": Kind(40, 1_000, yaml_texts(small_sweeps()), read_sweep_file),
    "selectors": Kind(300, 3_000, SELECTORS, select_weights),
    "run folders": Kind(22, 1_000, damages(), open_damaged_run),
    "corpora": Kind(25, 700, corpora(), read_corpus),
    "checkpoints": Kind(25, 1_000, checkpoints(), read_checkpoint),
    "addresses": Kind(3, 300, ADDRESSES, open_address),
}
TYPED = ("command lines", "run files", "sweep files")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which everything happens, with a store and inputs that are all right; no run is trained."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("bad")
    for name in ("secret.txt", "secret.yaml", "secret.safetensors", "secret"):
        (folder / name).write_text("{}")
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text(DOCUMENT * 20)
    (folder / "run.yaml").write_text(yaml.safe_dump(RUN))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(small_sweeps()[0]))
    (folder / "model").mkdir()
    save_huggingface(HookedTransformer(SHAPE, generator=torch.Generator()), folder / "model", end=None, pad=None)
    for name in RUNS:
        shutil.copytree(DEMO / "runs" / name, folder / "runs" / "runs" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.train.Trainer.run", stop)
        patch.setattr("procpre_interp.engine.engines.execute_all", stop)
        patch.setattr("procpre_interp.engine.processes.execute_all", stop)
        patch.setenv("CXX", "/nowhere/c++")  # no kernel is compiled
        yield folder


def attempt(name: str, case: Any, place: Path) -> None:
    """Try a case in the folder, and take away what it left there; of temporary files it must leave none."""
    before, kind = {path.name for path in place.iterdir()}, KINDS[name]
    typed = name in TYPED
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(tempfile, "tempdir", str(temporary := place / "temporary"))
        temporary.mkdir()
        patch.delenv("PROCPRE_STORE", raising=False)
        try:
            with watched(place, typed=typed, pickles=name == "addresses"):
                kind.attempt(case, place)
            assert not list(temporary.iterdir())
        finally:
            for path in place.iterdir():
                if path.name not in before:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            shutil.rmtree(place / "runs" / "partial", ignore_errors=True)


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much]


def try_all(name: str, n: int, place: Path, *, derandomize: bool) -> None:
    @settings(max_examples=n, deadline=None, database=None, derandomize=derandomize, suppress_health_check=CHECKS)
    @given(case=KINDS[name].cases)
    def each(case: Any) -> None:
        attempt(name, case, place)

    each()


READS = ("runs", "tasks", "corpora", "report", "diagnose", "initialise", "probe", "ablate", "patch")
"""Commands that only look, with what the folder holds."""


@pytest.mark.parametrize("words", [line for line in COMMAND_LINES if line[0] in READS], ids=lambda words: words[0])
def test_a_line_that_is_spoilt_is_right_by_itself(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]):
    """Otherwise it would be refused before what was changed in it is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(words) == 0, capsys.readouterr().err
    (place / "report.html").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "line",
    [
        "tasks --name dyck --examples N",
        f"probe {RUNS[0]} --what attention --sequences N",
        f"probe {RUNS[0]} --what linear --seed N",
        f"ablate {RUNS[0]} --sequences N",
        f"patch {RUNS[0]} --cause query --sequences N",
        "sweep sweep.yaml --count --replicates N",
        f"train --task dyck --train.threads N {TINY}",
        f"train --task dyck --seed N {TINY}",
    ],
)
@pytest.mark.parametrize("value", [2**31, 2**63, 2**64])
def test_numbers_of_every_command_have_bounds(line: str, value: int, place: Path, capsys: pytest.CaptureFixture[str]):
    if "--seed" in line and value < 2**63:
        return  # a seed like any other
    words = line.replace("N", str(value)).split()
    attempt("command lines", words, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(words) == 2
    assert str(value) in (said := capsys.readouterr().err)
    assert "at most" in said


@pytest.mark.parametrize("name", KINDS)
def test_bad_input(name: str, place: Path):
    try_all(name, KINDS[name].fast, place, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_ten_thousand_bad_inputs(name: str, place: Path):
    try_all(name, KINDS[name].slow, place, derandomize=False)
