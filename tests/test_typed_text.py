"""What people type or a file holds, with slips of every kind: read, or refused with one short line."""

import dataclasses
import json
import random
import sys
from collections.abc import Callable

import pytest
import yaml

from procpre_interp.cli import main
from procpre_interp.commands._models import named_task
from procpre_interp.commands._run_one import take_interventions
from procpre_interp.core.config import coerce, from_dict, from_yaml, to_yaml
from procpre_interp.core.messages import shown
from procpre_interp.core.plain_values import LARGEST_YAML, load_json, parse_yaml, yaml_fields
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.run import DamagedRun
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Sweep
from tests.explorer import DEMO
from tests.test_pipeline import child

SLIPS = [
    *"'\"[]{}:,#&*!|>%@`-?=\\\n\t ~.<",
    *("!!bool x", "!!int [1]", "!!float {}", "!!set {a}", "!!binary '?'", "!!timestamp x", "!!python/object:os.x {}"),
    *("&a [*a]", "*a", "<<: {a: 1}", "<<", "2020-02-31", "2020-13-45 99:99:99", ".nan", "-.inf", "1e999", "0x_", "0b"),
    *(str(2**70), "9" * 5000, "-" + "9" * 400, "0x" + "f" * 6000, "1:99:99", "null", "true", "=", "name=x", "self=1"),
    *("[" * 300, "{a: " * 300, "- " * 300, "x" * 10_000, "\x00", "\ud800", "\u2028", "é"),
    *("a: 1\na: 2\n", "{1: 2}", "? [a]\n: b"),
]
INTERVENED = [
    "rewind selector=mlp steps=[0,500]",
    "entropy_penalty weight=0.1 target=0.5 schedule=linear",
    "rate selector=attn learning_rate_factor=0.1 to_step=100",
]
CONFIG = """task: {name: dyck, k: 8, length: 16}
seed: 3
model: {n_layers: 1, d_model: 8, n_heads: 2}
train:
  steps: 50
  batch_size: 4
  learning_rate: 1e-3
  interventions: [{name: rewind, selector: mlp, steps: [0, 5]}]
parents: [{run: abcdef, selector: attn+ln, step: 10}]
"""
SWEEP = """name: small
task: {name: haystack}
phase1: [{name: dyck, task: {name: dyck}, train: {steps: 5}}]
train: {steps: 5}
replicates: 2
grids: [{phase1: [dyck], selector: [attn, mlp]}]
"""


def mutated(text: str, draw: random.Random) -> str:
    """The text with one to three slips: something put in, left out, doubled, or in place of something else."""
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice([0, 0, 1, 1, 5, 20]))
        text = text[:start] + draw.choice([*SLIPS, "", text[start:end] * 2]) + text[end:]
    return text


def read_config(text: str) -> None:
    from_dict(RunConfig, yaml_fields(text), "run.yaml")


def read_sweep(text: str) -> None:
    from_dict(Sweep, yaml_fields(text), "sweep.yaml")


READERS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "intervene": (lambda text: take_interventions(["--intervene", text]), INTERVENED),
    "task": (named_task, ["{name: dyck, k: 4}", "dyck", "{name: shuffled, task: {name: set}}"]),
    "config": (read_config, [CONFIG]),
    "sweep": (read_sweep, [SWEEP]),
    "anything": (parse_yaml, [CONFIG, SWEEP]),
}


@pytest.mark.parametrize("name", READERS)
def test_slips_are_one_short_line(name: str):
    read, texts = READERS[name]
    draw, refused = random.Random(15), 0
    for text in texts:
        read(text)
    for number in range(500):
        text = mutated(texts[number % len(texts)], draw)
        try:
            read(text)
        except ValueError as problem:
            refused += 1
            said = str(problem)
            assert "\n" not in said, (text, said)
            assert 10 < len(said) < 400, (text, said)
    assert refused > 100


BOMB = "&a [x,x,x,x,x,x,x,x,x,x]"
for name, inner in zip("bcdefgh", "abcdefg"):
    BOMB += f", &{name} [{', '.join([f'*{inner}'] * 10)}]"
BOMB = f"[{BOMB}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x", r"\*x is an alias; write out what it stands for \(line 2, column 4\)"),
        (BOMB, "alias"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("{true: 1, yes: 2}", "is given twice"),
        ("[" * 100 + "]" * 100, "more than 64 levels deep"),
        ("[" * 100_000, "more than 64 levels deep"),
        ("{1: 2}", "it holds a key that is not text"),
        ("x" * (LARGEST_YAML + 1), "larger than 200,000 bytes"),
        (b"\xff\xfe\xfd", "not allow|decode|utf"),
        ("!!bool x", "a value that its type does not allow: 'x'"),
        ("!!set {a}", "could not determine a constructor for the tag"),
        ("[0,500", r"expected ',' or '\]'"),
    ],
)
def test_what_yaml_may_not_hold(text: str | bytes, said: str):
    with pytest.raises(ValueError, match=said) as refused:
        parse_yaml(text)
    assert len(str(refused.value)) < 250


def test_deep_text_is_refused_far_from_the_limit_of_recursion(monkeypatch):
    """Close to it, finalizers of what is collected meanwhile fail, and what they were to free stays."""
    depth = deepest = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal depth, deepest
        depth += {"call": 1, "return": -1}.get(event, 0)
        deepest = max(deepest, depth)

    sys.setprofile(count)
    try:
        with pytest.raises(ValueError, match="levels deep"):
            parse_yaml("[" * 5_000)
    finally:
        sys.setprofile(None)
    assert 64 < deepest < 500
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parsed"))
    for deep in ("[" * 65, '{"a":' * 70, '"[" ' + "[" * 65):
        with pytest.raises(ValueError, match="levels deep"):
            load_json(deep)


def test_json_is_read_as_ever():
    brackets = json.dumps(["[" * 100, {"{": '\\"['}, *([1] for _ in range(100))])
    assert load_json(brackets) == json.loads(brackets) == load_json(brackets.encode("utf-16"))
    assert load_json("[" * 64 + "]" * 64) == json.loads("[" * 64 + "]" * 64)
    with pytest.raises(TypeError):
        load_json(5)  # pyright: ignore[reportArgumentType]


def test_what_yaml_holds():
    found = parse_yaml("a: [1, .5, 1e-3, yes, null, 2020-01-01]")
    assert found == {"a": [1, 0.5, "1e-3", True, None, "2020-01-01"]}
    assert parse_yaml("") is None


def test_our_own_yaml_has_no_aliases():
    same = child().parents * 3
    config = dataclasses.replace(child(), parents=same)
    assert from_yaml(RunConfig, to_yaml(config)) == config
    for path in sorted(DEMO.glob("runs/*/config.yaml")):
        assert parse_yaml(path.read_bytes()) == yaml.safe_load(path.read_bytes())


def test_values_in_messages_are_short():
    for value in ("x" * 10**6, ["x" * 1000] * 1000, {str(i): i for i in range(10**4)}, 10**5000, -(2**30000), object()):
        assert len(shown(value)) <= 100
    assert shown("word") == "'word'"
    with pytest.raises(ValueError, match="steps: a number of 16610 bits is not of type float"):
        coerce(10**5000, float, "steps")
    assert coerce(2**70, int) == 2**70


def test_a_stored_config_that_is_a_bomb_is_damage(tmp_path):
    store = RunStore(tmp_path)
    with store.claim("a" * 16) as partial:
        assert partial is not None
        partial.write_config(f"seed: {BOMB}")
        partial.write_json("environment.json", {})
        with pytest.raises(DamagedRun, match=r"config\.yaml cannot be read \(.*alias"):
            partial.finish({"status": "finished"})
    with pytest.raises(DamagedRun, match=r"config\.yaml cannot be read \(.*alias"):
        store.open("a" * 16)


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (
            ["--intervene", "rewind selector=mlp steps=[0,500"],
            CONFIG,
            "--intervene 'rewind selector=mlp steps=[0,500': 'st",
        ),
        (["--intervene", "rewind name=rate"], CONFIG, "'name' is given twice"),
        (["--intervene", "rewind 'steps=[0]"], CONFIG, "No closing quotation"),
        (["--intervene", "rewind selector=mlp steps=[0]"], "train: {interventions: true}", "adds to a list"),
        (["--intervene", "rewind selector=mlp steps=[0]"], "train: 5", "adds to a list"),
        ([], "{task: {name: dyck}, store: 5}", "store: 5 is not a string"),
        ([], f"{{task: {{name: dyck}}, seed: {BOMB}}}", "alias"),
        ([], "{task: {name: dyck}, seed: !!bool x}", "type does not allow"),
    ],
)
def test_the_command_line_says_it_in_one_line(tmp_path, capsys, arguments: list[str], text: str, said: str):
    (tmp_path / "run.yaml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--store", str(tmp_path / "runs"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert len(line) < 500
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["{name: dyck, 1: 2}", "{name: [dyck]}", "{name: dyck, k: !!bool x}", "{name: dyck"])
def test_tasks_that_are_none(text: str):
    with pytest.raises(ValueError, match="--task|unknown field of dyck '1'"):
        named_task(text)
