"""The config of one run: task, model, training, parents. Its hash is the run id."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from procpre_interp.ablate import Ablation
from procpre_interp.core.config import check_integers, content_hash, unhashed
from procpre_interp.core.selectors import canonical_selector
from procpre_interp.data import Task
from procpre_interp.model import ModelConfig
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Shape of the model, apart from what the task fixes. Defaults: the paper's small diagnostic model."""

    n_layers: int = 2
    """Blocks."""
    n_heads: int = 4
    """Attention heads per block."""
    d_model: int = 16
    """Width of the residual stream."""
    d_mlp: int | None = None
    """Hidden width of each MLP. Default: 4 x d_model."""
    n_ctx: int | None = None
    """Context length, in tokens. Default: what the task needs."""
    tied: bool = False
    """Whether W_U is the transpose of W_E."""
    init_std: float = 0.02
    """Standard deviation of fresh weights; residual projections have it divided by sqrt(2 n_layers)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """A finished run from which components are taken."""

    run: str
    """Its id."""
    selector: str = "all"
    """Which components: attn, mlp, ln, blocks.0.attn.head.2, ...; embeddings follow the transfer options."""
    step: int | None = None
    """Step of a checkpoint. Default: the final weights."""
    ablation: Ablation | None = None
    """Damage done to the parent's weights before the transfer."""
    place: int = 0
    """Which of the independent draws of its damage this parent has. `RunConfig.resolve` fills in where a damaged parent
    stands among the run's parents, counted from 0; runs stored before it did so have one draw for all of them."""

    def canonical(self, place: int) -> "Parent":
        """The same parent with its place, and its selectors spelt in one way, so that two spellings name one run."""
        damage = self.ablation
        if damage is None:
            place = 0
        else:
            damage = dataclasses.replace(damage, selector=canonical_selector(damage.selector))
        return dataclasses.replace(self, selector=canonical_selector(self.selector), ablation=damage, place=place)


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Where a model came from that was not trained here, and so cannot be trained again."""

    files: tuple[tuple[str, str], ...]
    """Name and SHA-256 of each file that was read."""
    ln_eps: float = 1e-5
    """What its LayerNorms add to the variance."""
    folder: str = unhashed("")
    """Last name of the folder that it was in."""

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("an imported model of no files; import its folder")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """One phase of training: a task, a model, and where its weights come from. Phase 1 is a run without parents.

    An imported model is a run, too: of no steps, whose seed and training say nothing.
    """

    version = 1

    task: Task
    """What the model is trained on."""
    seed: int = 0
    """Seed of the initial weights and the data: 0-99 for tuning, 1000 and up for confirmation."""
    model: Architecture = field(default_factory=Architecture)
    """Shape of the model."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""
    parents: tuple[Parent, ...] = ()
    """Runs that give components; several make an assembly, to which each gives others (see `transfer.overlap`)."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """What happens to embeddings and positions. Without parents it has no effect."""
    optimiser: Literal["fresh", "carried"] = "fresh"
    """State of the optimiser at the start: fresh, or carried from the parents along with the weights, whose moments go
    wherever those go. Moments of weights that are not carried, or that are averaged or frozen, are fresh."""
    imported: Imported | None = None
    """The files that the model was imported from. Default: it is trained here."""
    draw: int = 0
    """Which of the independent draws of fresh weights that a task and a seed have. `with_own_draw` fills in the first
    that no ancestor has, since weights that a parent began with are not fresh; runs stored before it did so have 0."""

    def __post_init__(self) -> None:
        if self.imported is not None and self.parents:
            raise ValueError("an imported model has no parents: its weights are those of its files")
        if self.train.start_at and not self.parents:
            raise ValueError(f"start_at={self.train.start_at} without parents; it goes on with what the first one did")
        if self.optimiser == "carried":
            for parent in self.parents:
                if parent.ablation is not None or parent.step is not None:
                    what = "damaged weights" if parent.ablation is not None else f"the weights of step {parent.step}"
                    raise ValueError(
                        f"optimiser=carried with {what} of run {parent.run}: the state that is kept belongs to its "
                        "final weights; give optimiser fresh"
                    )
        # Checked here so that a bad shape is one line before any work is done.
        for name in ("task", "model", "train", "parents"):
            check_integers(getattr(self, name), name)
        config = model_config(self)
        if config.n_ctx < self.task.n_ctx:
            raise ValueError(
                f"sequences of {self.task.n_ctx} tokens are longer than the context n_ctx={config.n_ctx}; "
                "give a longer n_ctx or a shorter length"
            )

    def resolve(self) -> "RunConfig":
        """The config with everything filled in that the numbers depend on: what is hashed."""
        task = self.task.resolve()
        shape = dataclasses.replace(
            self.model,
            d_mlp=None if self.model.d_mlp == 4 * self.model.d_model else self.model.d_mlp,
            n_ctx=None if self.model.n_ctx == task.model_n_ctx else self.model.n_ctx,
        )
        if self.imported is not None:
            return RunConfig(task=task, model=shape, imported=self.imported)
        train = self.train.resolve(model_config(self))
        if train.freeze is not None:
            train = dataclasses.replace(train, freeze=canonical_selector(train.freeze))
        parents = tuple(parent.canonical(place) for place, parent in enumerate(self.parents))
        transfer = self.transfer if parents else TransferConfig()
        if len(parents) < 2:
            transfer = dataclasses.replace(transfer, overlap="refuse")
        if transfer.positions_parent == transfer.embedding_parent:
            transfer = dataclasses.replace(transfer, positions_parent=None)
        return dataclasses.replace(
            self,
            task=task,
            model=shape,
            train=train,
            parents=parents,
            transfer=transfer,
            optimiser=self.optimiser if parents else "fresh",
        )

    @property
    def fresh_labels(self) -> tuple[str | int, ...]:
        """What, beside the seed, the random streams of fresh weights are named by."""
        # The first draw's streams are those of runs that were stored before there was another.
        return (self.task.stream_label, self.draw) if self.draw else (self.task.stream_label,)

    @property
    def kernel_note(self) -> str | None:
        """One line when `kernel: auto` falls back to torch, and why; None when it does not."""
        reason = self.train.why_torch(model_config(self)) if self.train.kernel == "auto" else None
        return reason and f"kernel: torch, since {reason}"

    @property
    def native_id(self) -> str | None:
        """Name of the run that this would be with the native kernel, where `kernel: auto` falls back to torch."""
        if self.kernel_note is None:
            return None
        return dataclasses.replace(self, train=dataclasses.replace(self.train, kernel="native")).run_id

    @property
    def compile_note(self) -> str | None:
        """One line where `resolve` will first compile the native kernel; None where it is there, or is not used."""
        if self.train.kernel not in ("auto", "native") or not self.train.needs_compiling(model_config(self)):
            return None
        return "compiling the native kernel for this shape: up to a minute, once"

    @property
    def run_id(self) -> str:
        """Name of the run: the hash of the resolved config, parents' ids included."""
        return content_hash(self.resolve())


def with_own_draw(config: RunConfig, ancestors: Sequence[RunConfig]) -> RunConfig:
    """The config with fresh weights that none of its ancestors began with.

    Those of the same seed and kind of task would have: text after text, where "fresh" embeddings were the ones that
    phase 1 had been trained from. A model that is taken over whole, as for the rest of a training, has nothing fresh.
    """
    label = config.task.stream_label
    taken = {each.draw for each in ancestors if (each.seed, each.task.stream_label) == (config.seed, label)}
    if config.draw not in taken or _is_whole(config, ancestors):
        return config
    return dataclasses.replace(config, draw=next(draw for draw in itertools.count() if draw not in taken))


def _is_whole(config: RunConfig, ancestors: Sequence[RunConfig]) -> bool:
    """Whether a parent gives every weight, so that a draw would change nothing but the run's name."""
    kept = TransferConfig(token_embedding="retain", unembedding="retain", positions="carry")
    transfer = dataclasses.replace(config.transfer, embedding_parent=0, positions_parent=None, overlap="refuse")
    contexts = [model_config(each).n_ctx for each in ancestors]
    everything = any(canonical_selector(parent.selector) == "all" for parent in config.parents)
    return everything and transfer == kept and min(contexts, default=0) >= model_config(config).n_ctx


def model_config(config: RunConfig) -> ModelConfig:
    """The model's shape, its context and vocabulary taken from the task."""
    shape = config.model
    return ModelConfig(
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        d_model=shape.d_model,
        d_mlp=shape.d_mlp,
        n_ctx=config.task.model_n_ctx if shape.n_ctx is None else shape.n_ctx,
        d_vocab=config.task.d_vocab,
        tied=shape.tied,
        init_std=shape.init_std,
        **({} if config.imported is None else {"ln_eps": config.imported.ln_eps}),
    )
