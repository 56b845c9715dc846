"""Words for messages: values cut to a line, and the error for a name that does not exist."""

import difflib
import reprlib
import textwrap
from typing import Any

SHOWN = 100
"""Characters of a value that a message has."""
LONGEST = 2_000
"""Characters of a message, about a screen: what is larger quotes a value that somebody made large."""


def shown(value: Any, at_most: int = SHOWN) -> str:
    """The value as Python would write it, for a message: cut to a hundred characters, however large it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = at_most
    short.maxlist = short.maxtuple = short.maxdict = 20
    try:
        text = short.repr(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= at_most else f"{text[: at_most - 3]}..."


def one_line(text: object) -> str:
    """A text, or what an error says, without line breaks."""
    return " ".join(str(text).split())


def cut(text: str) -> str:
    """A message of at most `LONGEST` characters: its middle is left out, since the remedy stands at the end."""
    half = LONGEST // 2 - 3
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def unknown_name(kind: str, name: str, choices: list[str]) -> ValueError:
    """The error for a name that does not exist: it lists the choices and the closest one."""
    close = difflib.get_close_matches(str(name)[:SHOWN], choices, n=1)
    hint = f" Did you mean {shown(close[0], 60)}?" if close else ""
    listed = ", ".join(choice[:60] for choice in sorted(choices))  # which may themselves come from a file
    known = textwrap.shorten(listed, 260, placeholder=" ...")
    return ValueError(f"unknown {kind} {shown(name, 60)}.{hint} There are{f': {known}' if choices else ' none'}")
