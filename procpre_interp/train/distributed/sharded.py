"""The training loop in one of several processes that share the weights: torch's FSDP2, `fully_shard`."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from procpre_interp.core.atomic_files import remove
from procpre_interp.model import HookedTransformer, Weights, flat_mask, matrix_parameters, parameter_names, with_weights
from procpre_interp.train.distributed.scored import Scored
from procpre_interp.train.distributed.sharded_optimiser import ShardedAdamW
from procpre_interp.train.distributed.trainer import DistributedTrainer
from procpre_interp.train.loop import Trainer
from procpre_interp.train.shards import read_shards, remove_other_shards, shards_folder, write_shards
from procpre_interp.train.state import TrainState, newest_state, previous_state, read_state, shards_of, write_state


class ShardedTrainer(DistributedTrainer):
    """A `DistributedTrainer` whose processes each have a part of every weight, gradient and moment.

    A block's weights are put together for as long as it computes, in float32. States are saved in shards, by all
    processes, and read by any number of them. `weights` are put together to be kept, and at the end, when `model` is an
    ordinary model in the first process.

    Saturated attention is not looked for, which would take the weights of a whole layer at each evaluation.
    """

    optimiser: ShardedAdamW  # pyright: ignore[reportIncompatibleVariableOverride]

    def wrapped(self, scored: Scored) -> nn.Module:
        model, group = scored.model, self.group
        mesh = init_device_mesh(group.device.type, (group.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(scored, mesh=mesh)
        model.release()
        return scored

    def make_optimiser(self) -> ShardedAdamW:  # pyright: ignore[reportIncompatibleMethodOverride]
        model, config = self.model, self.config
        frozen: dict[str, Tensor] = {}
        if config.freeze is not None:
            mask = flat_mask(model, config.freeze)
            cut = {name: mask[offset : offset + shape.numel()] for name, (offset, shape) in model.slices.items()}
            frozen = {name: part for name, part in cut.items() if part.any()}
        return ShardedAdamW(
            dict(model.named_parameters()),
            self.group,
            weight_decay=config.weight_decay,
            decayed=parameter_names(model.config) if config.decay == "all" else matrix_parameters(model.config),
            frozen=frozen,
            betas=(config.beta1, config.beta2),
            clip_norm=config.clip_norm,
        )

    def run(self) -> TrainState:
        """Train as one process does; then the first has the whole model, and the optimiser's state if it is kept."""
        state = super().run()
        weights, moments = self.weights(), self.optimiser.state() if self.config.keep_optimiser else {}
        if self.group.is_first:
            whole = HookedTransformer(self.model.config, generator=torch.Generator())
            self.model = with_weights(whole, weights).to(self.config.device)
            self.optimiser = Trainer.make_optimiser(self)  # pyright: ignore[reportAttributeAccessIssue]
            self.optimiser.load_state(moments)
        return state

    def evaluate(self) -> None:
        """Evaluate as with whole weights, but for the look at attention."""
        self.is_warned = True
        super().evaluate()
        # Between forward and backward pass the outermost weights stay whole, and here no backward pass follows.
        cast(FSDPModule, self.module).reshard()

    def weights(self) -> Weights:
        """The whole weights, on the CPU. All processes must call it; the first one keeps them."""
        whole: Weights = {}
        for name, p in self.model.named_parameters():
            tensor = cast(DTensor, p.detach()).full_tensor()
            if self.group.is_first:
                whole[name] = tensor.cpu()
        return whole

    def keep_weights(self) -> None:
        """The first process keeps the weights, which `kept_weights` then are."""
        self.kept_weights = self.weights()
        super().keep_weights()
        self.kept_weights = {}

    def save(self) -> None:
        """Every process writes its part of the tensors; then the first one the state, which names their files."""
        path = self.group.first(lambda: self.state_path)
        if path is None:
            return
        folder = shards_folder(path) / f"step_{self.state.step:08}"
        self.group.first(lambda: remove(folder))
        own = f"shard-{self.group.launch.rank + 1:05}-"
        written = self.group.gather(self.group.together(lambda: write_shards(folder, self.optimiser.tensors(), own)))
        self.state.shards = {name: digest for part in written for name, digest in part.items()}

        def enter() -> None:
            write_state(path, self.state, {})
            remove_other_shards(path, [*shards_of(path), *shards_of(previous_state(path))])

        self.group.first(enter)

    def load(self) -> None:
        """Every process reads its part of the newest state that can be used, whoever wrote it."""

        def newest() -> tuple[tuple[Path, dict[str, Any]] | None, list[str]]:
            found, damage = newest_state(self.state_path, self.check_kept, whole=False)
            return None if found is None else (found.path, dataclasses.asdict(found.state)), damage

        found, damage = self.group.first(newest)
        if found is not None:
            path, self.state = found[0], TrainState(**found[1])
            if self.state.shards:
                folder = shards_folder(path) / next(iter(self.state.shards)).partition("/")[0]
                self.group.together(lambda: read_shards(folder, self.optimiser.tensors()))
            else:
                self.group.together(lambda: self.take_part(read_state(path)[1]))
        self.tell_damage(damage)

    def take_part(self, tensors: dict[str, Tensor]) -> None:
        """This process's part of a state that is not in shards."""
        flat, offset = tensors.pop("flat"), 0
        for name, p in self.optimiser.parameters.items():
            with torch.no_grad():
                p.to_local().copy_(self.optimiser.own_part(name, flat[offset : offset + p.numel()]))
            offset += p.numel()
        self.optimiser.load_state({name.removeprefix("adam."): tensor for name, tensor in tensors.items()})
