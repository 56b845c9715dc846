"""What the corpora read: their documents by hand, and files that are broken, empty, truncated or one huge line."""

import dataclasses
import gzip
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.data.corpus import Corpus, SourceFile, build_corpus
from procpre_interp.data.semantic import code
from procpre_interp.data.semantic.code import Java
from procpre_interp.data.semantic.mathematics import theorems
from procpre_interp.data.semantic.prose import ServiceDocs, without_tags
from tests.archives import make_wheel
from tests.documents import read_all


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def read(name: str, *contents: tuple[str, bytes]) -> tuple[list[str], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(build_corpus(name).documents(contents, skipped)), skipped


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


# By hand


def test_wikipedia_leads_are_extracts():
    content = json.dumps({"A": {"title": "A", "extract": "A is."}, "B": {"title": "B"}, "C": {"extract": "Größe."}})
    assert read("wikipedia-leads", ("a.json", content.encode())) == (["A is.", "Größe."], {"article without text": 1})


def service(*texts: str) -> bytes:
    shapes = {f"Shape{i}": {"documentation": text, "type": "string"} for i, text in enumerate(texts)}
    return gzip.compress(json.dumps({"documentation": "<p>Whole.</p>", "shapes": shapes}).encode())


def test_a_service_is_a_document_and_no_description_occurs_twice():
    one, two = service("<p>First &amp; last.</p>", "<p>Same.</p>"), service("<p>Same.</p>", "a<i>b</i> c", "")
    documents, skipped = read("service-docs", ("x/data/one/1/s.json.gz", one), ("x/data/two/1/s.json.gz", two))
    assert documents == ["Whole.\n\nFirst & last.\n\nSame.", "ab c"]
    assert not skipped


def test_the_newest_interface_of_each_service_is_read(tmp_path, monkeypatch):
    names = [f"botocore/data/{name}/service-2.json.gz" for name in ("a/2006-01-01", "a/2014-11-13", "b/2012-01-01")]
    make_wheel(tmp_path, "botocore", "1.44.8", {**{name: service(name) for name in names}, "x.py": b""})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    unpinned = dataclasses.replace(ServiceDocs.package, sha256="")
    monkeypatch.setattr(ServiceDocs, "package", unpinned)
    assert [file.name for file in build_corpus("service-docs").files()] == names[1:]


def test_markup_becomes_lines():
    markup = "<fullname>A</fullname> <p>x &lt; y  and\n z <code>c</code></p><ul> <li><p>one</p></li><li>two</li></ul>"
    assert without_tags(markup) == "A\nx < y and\nz c\none\ntwo"
    assert without_tags("1 < 2 > 0") == "1 < 2 > 0"


def test_linux_docs_are_unpacked():
    contents = ("a.rst", b"Plain."), ("b.txt.gz", gzip.compress(b"Packed.")), ("c.rst", b"\xff")
    assert read("linux-docs", *contents) == (["Plain.", "Packed."], {"not UTF-8": 1})


NOTICE = b"/*\n * Copyright (c) 1995, Somebody.\n */\n\n"


def test_java_without_tables_resources_and_notices():
    files = {
        "java.base/A.java": NOTICE + b"package a;\n/* Copyright */",
        "java.base/B.java": b"/* Not that. */\nclass B {} // Copyright\n/* x */",
        "java.base/resources/C.java": b"class C {}",
        "java.base/x/resources/D.java": b"class D {}",
        "jdk.localedata/E.java": b"class E {}",
        "java.base/F.properties": b"f=1",
        "java.base/G.java": b"\xff",
    }
    documents, skipped = read("java", ("src.zip", zipped(files)))
    assert documents == ["package a;\n/* Copyright */", files["java.base/B.java"].decode()]
    assert skipped == {"not UTF-8": 1}


def make_jdk(folder: Path) -> Path:
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "src.zip").write_bytes(zipped({"java.base/A.java": b"class A {}"}))
    (folder / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.2"\n')
    return folder


def test_the_sources_of_an_installed_jdk_are_read_unless_the_link_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(code, "JDKS", tmp_path / "jvm")
    dangling = tmp_path / "dangling"
    (dangling / "lib").mkdir(parents=True)
    (dangling / "lib" / "src.zip").symlink_to(tmp_path / "nowhere.zip")
    monkeypatch.setenv("JAVA_HOME", str(dangling))
    assert code.installed_sources() is None
    assert build_corpus("java").state() == "to be fetched"
    jdk = make_jdk(tmp_path / "jvm" / "jdk")
    corpus = build_corpus("java")
    assert (corpus.state(), corpus.versions()) == ("in place", {"java": "21.0.2"})
    assert corpus.files() == [SourceFile("src.zip", jdk / "lib" / "src.zip")]
    mine = make_jdk(tmp_path / "mine")
    monkeypatch.setenv("JAVA_HOME", str(mine))
    assert corpus.files() == [SourceFile("src.zip", mine / "lib" / "src.zip")]


def test_java_is_fetched_where_no_jdk_has_its_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(code, "JDKS", tmp_path / "jvm")
    with pytest.raises(OSError, match="corpus java could not be fetched: apt-get is not installed here; "):
        build_corpus("java").files()
    packed = tmp_path / "src.zip"
    monkeypatch.setattr(type(Java.package), "files", lambda self: {"usr/lib/jvm/x/lib/src.zip": packed})
    assert build_corpus("java").files() == [SourceFile("src.zip", packed)]


def test_python_packages_without_tests_and_copies(tmp_path, monkeypatch):
    for name in (
        "a/__init__.py",
        "a/tests/b.py",
        "transformers/models/c.py",
        "transformers/d.py",
        "procpre_interp/e.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    monkeypatch.setattr("sysconfig.get_path", lambda kind: str(tmp_path))
    corpus = build_corpus("python-packages")
    assert [file.name for file in corpus.files()] == ["a/__init__.py", "transformers/d.py"]
    assert corpus.versions()["torch"]
    assert sorted(read_all(corpus)[0]) == ["a/__init__.py", "transformers/d.py"]


DATABASE = """$( A file. $)
$c ( ) -> |- wff $.  $v ph ps $.
wph $f wff ph $.
$( Implication is a formula. $)
wi $a wff ( ph -> ps ) $.
$( Axiom one. $)
ax-1 $a |- ( ph -> ( ps -> ph ) ) $.
${
    min $e |- ph $.
    ${ $d ph ps $.
        $( Two
           lines. $)
        maj $e |- ( ph -> ps ) $.
        mp $p |- ps $= ( ax-1 ABCD ) EF $( Inside. $) G $.
    $}
    a1i.1 $p |- ( ps -> ph ) $=
      ? $.
$}
"""


def test_a_theorem_is_its_comment_its_hypotheses_and_its_statement():
    assert list(theorems("x", DATABASE)) == [
        "Axiom one.\nax-1 $a |- ( ph -> ( ps -> ph ) ) $.",
        "Two lines.\nmin $e |- ph $.\nmaj $e |- ( ph -> ps ) $.\nmp $p |- ps $.",
        "Inside.\nmin $e |- ph $.\na1i.1 $p |- ( ps -> ph ) $.",
    ]


def test_a_database_cut_within_a_block_is_damaged():
    with pytest.raises(ValueError, match=r"corpus set-mm, set.mm: it ends within a block"):
        read("set-mm", ("set.mm", DATABASE[: DATABASE.index("a1i.1")].encode()))
    with pytest.raises(ValueError, match=r"a block ends, at character \d+, that did not begin"):
        read("set-mm", ("set.mm", DATABASE.replace("${", "").encode()))


# Broken, empty, truncated, huge

HUGE = "word and " * 400_000
"""A line of 3.6 MB."""


def parquet(texts: list[str]) -> bytes:
    content = io.BytesIO()
    pd.DataFrame({"text": pd.Series(texts, dtype=object)}).to_parquet(content)
    return content.getvalue()


KINDS = {
    "a.txt": str.encode,
    "a.md": str.encode,
    "a.py": str.encode,
    "a.jsonl": lambda text: json.dumps({"text": text}).encode() + b"\n",
    "a.parquet": lambda text: parquet([text]),
}
"""A file that `files:` reads, and how it holds a text."""

PACKED = {
    "wikipedia-leads": lambda text: json.dumps({"A": {"extract": text}}).encode(),
    "service-docs": lambda text: gzip.compress(json.dumps({"documentation": text}).encode()),
    "linux-docs": lambda text: gzip.compress(text.encode()),
    "java": lambda text: zipped({"java.base/A.java": text.encode()}),
    "set-mm": lambda text: f"$( {text} $) a $a |- ph $.".encode(),
}
"""How the files of other corpora hold a text."""

WHOLE = {"python-stdlib": str.encode, "python-packages": str.encode, "docstrings": lambda text: f"'{text}'".encode()}
ALL = {**{f"files:{name}": hold for name, hold in KINDS.items()}, **PACKED, **WHOLE}


def corpus_of(name: str) -> tuple[Corpus, str]:
    _, _, file = name.partition(":")
    return build_corpus(name), file or "file"


@pytest.mark.parametrize("name", ALL)
def test_a_huge_line_is_a_document(name):
    corpus, file = corpus_of(name)
    (document,) = corpus.documents([(file, ALL[name](HUGE))], Counter())
    assert len(document) >= len(HUGE) - 1
    assert HUGE.strip() in document


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("harm", ["empty", "truncated", "no UTF-8"])
def test_a_broken_file_is_left_out_and_counted_or_named(name, harm):
    """It is never an error of a library, nor a document that is not what the file holds."""
    corpus, file = corpus_of(name)
    whole = ALL[name]("Some text of a file. " * 20)
    content = {"empty": b"", "truncated": whole[: len(whole) // 2], "no UTF-8": b"\xff\xfe\xff" + whole}[harm]
    documents, skipped, problem = attempt(corpus, file, content)
    if problem:
        assert problem.startswith(f"corpus {corpus}, {file}")
        assert "\n" not in problem
    assert all(document in "Some text of a file. " * 20 for document in documents)
    if harm == "no UTF-8" and name not in PACKED:
        assert documents == []
        assert problem or sum(skipped.values()) == 1


def attempt(corpus: Corpus, file: str, content: bytes) -> tuple[list[str], Counter[str], str]:
    """The documents of a file, what was left out, and what was said of it where it could not be read."""
    skipped: Counter[str] = Counter()
    documents: list[str] = []
    try:
        documents.extend(corpus.documents([(file, content)], skipped))
    except ValueError as problem:
        return documents, skipped, str(problem)
    return documents, skipped, ""


def test_an_empty_table_has_no_documents():
    assert read("files:a.parquet", ("a.parquet", parquet([]))) == ([], {})
    assert read("files:a.jsonl", ("a.jsonl", b"\n\n")) == ([], {})


@pytest.mark.parametrize("where", ["head", "middle", "tail"])
def test_a_damaged_archive_of_java_is_named(where):
    content = bytearray(zipped({f"java.base/{i}.java": b"class A {}" * 50 for i in range(20)}))
    place = {"head": 40, "middle": len(content) // 2, "tail": len(content) - 40}[where]
    content[place : place + 30] = b"\xff" * 30
    documents, _, problem = attempt(build_corpus("java"), "src.zip", bytes(content))
    assert problem.startswith("corpus java, src.zip: a damaged zip file: ")
    assert set(documents) <= {"class A {}" * 50}


def test_a_corpus_is_read_file_by_file():
    """Documents come as the files do: a corpus larger than memory is never in memory."""
    for name in ("service-docs", "linux-docs", "set-mm", "wikipedia-leads", "java", "python-packages"):
        given: list[str] = []

        def contents(hold=ALL[name], given=given):
            for i in range(5):
                given.append(f"{i}")
                yield f"x/y/{i}/z", hold(f"text {i}")

        documents = build_corpus(name).documents(contents(), Counter())
        assert "text 0" in next(documents)
        assert given == ["0"], name
