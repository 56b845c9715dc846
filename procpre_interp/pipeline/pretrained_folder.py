"""A run's model as a folder that Hugging Face's `from_pretrained` opens: weights, config, tokenizer and model card."""

from pathlib import Path

from procpre_interp.core.atomic_files import atomic_folder
from procpre_interp.data.tokenizer_files import NoTokenizer, TokenizerFiles, foreign_tokenizer_files, tokenizer_files
from procpre_interp.model import HookedTransformer, save_huggingface
from procpre_interp.pipeline.lineage import Moment
from procpre_interp.store.run import TOKENIZER


def tokenizer_of(moment: Moment, model: HookedTransformer) -> tuple[TokenizerFiles, str]:
    """The tokenizer of a model, and why there is none (otherwise empty)."""
    n_ctx = model.config.n_ctx
    try:
        if TOKENIZER in moment.source.manifest:  # an imported model's own
            return foreign_tokenizer_files(moment.source.read(TOKENIZER).decode(), n_ctx), ""
        return tokenizer_files(moment.task, n_ctx), ""
    except NoTokenizer as problem:
        return TokenizerFiles(texts={}), str(problem)


def write_pretrained(model: HookedTransformer, tokenizer: TokenizerFiles, card: str, folder: str | Path) -> None:
    """Write model and tokenizer, and the card as README.md.

    `AutoModelForCausalLM` and `AutoTokenizer` open the folder, and so does whatever is built on them. Where lm-eval is
    installed (`pip install "procpre_interp[evaluation]"`), its tasks run on an exported model as on any other:

        lm_eval --model hf --model_args pretrained=FOLDER,tokenizer=FOLDER --tasks wikitext --device cpu

    The folder is whole or absent, and holds safetensors, JSON and text only. Raises `FileExistsError` unless it is
    absent or empty before.
    """
    with atomic_folder(folder) as temporary:
        save_huggingface(model, temporary, end=tokenizer.end, pad=tokenizer.pad)
        for name, text in {**tokenizer.texts, "README.md": card}.items():
            (temporary / name).write_text(text, encoding="utf-8")
