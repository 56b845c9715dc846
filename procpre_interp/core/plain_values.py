"""Plain values (what JSON can say) from YAML or JSON that anybody may have written, bounded in depth and size."""

import json
import re
from collections import Counter
from io import BufferedIOBase
from itertools import accumulate, chain, islice
from typing import Any, ClassVar

import yaml
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError

from procpre_interp.core.messages import SHOWN, one_line

DEEPEST, MOST_VALUES = 64, 1_000_000
"""Levels of nesting, and values on one level, in JSON or YAML."""

_PLAIN = (dict, list, str, int, float, bool, type(None))

LARGEST_YAML = 200_000
"""Bytes, of which some hundred thousand are read per second; a config has a few hundred to a few thousand."""

LARGEST_HEADER = 100_000_000
"""Bytes of the header of a safetensors file, by its format."""


class TooDeep(ValueError):
    """What is nested more than `DEEPEST` levels deep."""

    def __init__(self) -> None:
        super().__init__(f"nested more than {DEEPEST} levels deep")


if yaml.__with_libyaml__:

    class _Loader(Composer, yaml.CSafeLoader):
        """YAML parsed by libyaml, five times as fast as by PyYAML, and composed in Python, where it can be refused."""

        def __init__(self, stream: str | bytes) -> None:
            yaml.CSafeLoader.__init__(self, stream)
            Composer.__init__(self)

else:  # a PyYAML that was built here
    _Loader = yaml.SafeLoader  # pyright: ignore[reportAssignmentType]


class _PlainLoader(_Loader):
    """YAML for what JSON could say as well: no aliases, which make a small text large, no dates, sets or bytes."""

    yaml_implicit_resolvers: ClassVar[dict] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar[dict] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # Not left to Python's limit: close to it, finalizers of whatever is collected meanwhile would fail.
        if self.depth >= DEEPEST:
            raise TooDeep
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            said = f"*{event.anchor} is an alias; write out what it stands for"
            raise ComposerError(None, None, said, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        found = super().construct_mapping(node, deep=deep)
        if len(found) < len(node.value):
            raise ConstructorError(None, None, f"{max(names, key=names.__getitem__)!r} is given twice", node.start_mark)
        return found


_NOT_ITS_TYPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse_yaml(text: str | bytes) -> Any:
    """What a YAML text says that a person typed, or that is stored. Raises `ValueError`, in one line, where it cannot
    be read, or is more than a config can be."""
    if len(text) > LARGEST_YAML:
        raise ValueError(f"larger than {LARGEST_YAML:,} bytes")
    try:
        value = yaml.load(text, _PlainLoader)
    except TooDeep:
        raise
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        said = one_line(f"{problem.context or ''} {problem.problem or ''}")
        raise ValueError(f"{said[: 2 * SHOWN]}{place}") from None
    except (yaml.YAMLError, *_NOT_ITS_TYPE) as problem:
        # What PyYAML lets through where a text does not fit the type that it has by its looks or by a tag: `!!bool x`.
        said = one_line(problem)
        raise ValueError(f"a value that its type does not allow: {said[: 2 * SHOWN]}") from None
    check_plain(value)
    return value


def yaml_fields(text: str | bytes, where: str = "config") -> dict[str, object]:
    """The fields in a YAML text. Raises `ValueError` when it holds anything else."""
    try:
        data = parse_yaml(text)
    except ValueError as problem:
        raise ValueError(f"{where}: not YAML: {problem}") from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise ValueError(f"{where}: expected fields and values, such as 'seed: 1', found {kind}")
    return data


_JSON_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def load_json(content: str | bytes) -> Any:
    """`json.loads`, but for what is nested too deeply: a `ValueError`, raised before anything is parsed.

    Close to Python's limit of recursion, finalizers of whatever is collected meanwhile would fail.
    """
    text = content.decode(json.detect_encoding(content)) if isinstance(content, bytes) else content
    if not isinstance(text, str):  # a field of something that was read, and may be anything
        raise TypeError(f"JSON is text, not {type(text).__name__}")
    if text.count("[") + text.count("{") > DEEPEST:
        brackets = re.findall(r"[\[\]{}]", _JSON_TEXT.sub("", text))
        if max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0) > DEEPEST:
            raise TooDeep
    return json.loads(text)


def load_header(file: BufferedIOBase, largest: int = LARGEST_HEADER) -> Any:
    """What the header of a safetensors file says, of which at most `largest` bytes are read. Errors: `load_json`'s."""
    return load_json(file.read(min(int.from_bytes(file.read(8), "little"), largest)))


def parse_json(content: bytes) -> Any:
    """The value that JSON describes. Raises `ValueError` for anything else, and for what is nested too deeply."""
    value = load_json(content.decode())  # bytes would be searched for their encoding first
    if content.count(b"[") + content.count(b"{") > DEEPEST:  # a list of runs reads thousands that are flat
        check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise `ValueError` unless the value is made of mappings with text keys, lists, text, numbers, booleans and null.

    Also raised for more than `DEEPEST` levels or `MOST_VALUES` values.
    """
    level = [value]
    for _ in range(DEEPEST):
        for each in level:
            if not isinstance(each, _PLAIN):
                raise ValueError(f"it holds a {type(each).__name__}")
            if isinstance(each, dict) and not all(isinstance(key, str) for key in each):
                raise ValueError("it holds a key that is not text")
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = list(islice(chain.from_iterable(inner), MOST_VALUES + 1))
        if not level:
            return
        if len(level) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
    raise TooDeep
