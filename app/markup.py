"""Text from files and addresses where markdown is read: nothing of it becomes markup."""

import re


def quoted(text: str, at_most: int = 60) -> str:
    """Text from an address or a file as code, so that it cannot become markup or a link."""
    return f"`{' '.join(text.replace('`', '').split())[:at_most]}`"


def escaped(text: str) -> str:
    """Text from a file as it stands, for where markdown would be read: in one line, nothing of it becomes markup.

    Escaped is what begins markup wherever it stands; the end of a link's text; a colon or an at sign that would begin a
    directive or a link; and what begins a list, a heading or a rule where it stands first. An address that begins with
    "www." still becomes a link to what it says.
    """
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", _escape(" ".join(text.split())))


def _escape(text: str) -> str:
    return re.sub(r"[\\`*_~$<>|]|\](?=[(\[:])|[:@](?=\S)", r"\\\g<0>", text)


def worded(text: str) -> str:
    """A sentence of the library, in which a file's text may stand: its `commands` as code, all else as it stands."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is no markup
        return escaped(text)
    return "".join(f"`{part}`" if index % 2 else _escape(part) for index, part in enumerate(parts))
