"""Several processes that train one model: who this process is, and how all of them do the same.

torchrun or SLURM starts the processes, the *ranks*. The first one, rank 0, leads: it alone reads the config's meaning,
looks into the store, holds locks and writes files; the others follow its orders (`lockdec.pipeline.following`). Only
the training of some stages is done by all `together`; in such a block each rank takes its share of every batch,
weighted by its real tokens, so that a step is the step of a single process. Outside of one, every question here is
answered as in a single process.

What ranks tell each other is JSON and tensors, so nothing is unpickled. A rank that dies closes its connections, which
ends the others at once; one that hangs in training ends them after `PATIENCE`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

from lockdec.errors import ConfigError, LockdecError

if TYPE_CHECKING:
    import lightning as L
    import torch
    from jaxtyping import Bool
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.pytorch.strategies import Strategy
    from torch import Tensor

    from lockdec.config.schema import TrainerConfig
    from lockdec.transformer.models import LockingDecoderModel

PATIENCE = timedelta(minutes=30)  # within which a rank has to arrive where the others wait in training
ORDERS = timedelta(days=7)  # within which the first rank has to be done with what it does alone


class LostRankError(LockdecError):
    """Another rank is gone, so that this one cannot go on."""


class FollowedError(BaseException):
    """Ends what a rank that follows had to do of a stage."""

    agreed = True


@dataclass(frozen=True)
class Started:
    """How many processes were started for this job, and which one this is.

    Attributes:
        rank: 0 <= rank < world.
        local: its number on its machine.
        nearby: how many there are on a machine.
    """

    rank: int
    world: int
    local: int
    nearby: int


_started: Started | None = None  # once they have met
_control: Any = None  # the group that orders go through
_together = _broken = False
_wholes: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # what sharded models are copies of


def started() -> Started:
    """What torchrun, or `srun`, has put into the environment; a single process without them. Needs no torch."""
    found = os.environ
    if "TORCHELASTIC_RUN_ID" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Started(*(int(found[name]) for name in names))
    if "SLURM_STEP_ID" in found and int(found.get("SLURM_NTASKS", 1)) > 1:  # a step, and not the script of a batch job
        world = int(found["SLURM_NTASKS"])
        nearby = world // int(found.get("SLURM_NNODES", 1))
        return Started(int(found["SLURM_PROCID"]), world, int(found["SLURM_LOCALID"]), nearby)
    return Started(0, 1, 0, 1)


def broken() -> bool:
    """Whether the ranks have lost each other, so that this job can only end."""
    return _broken


def follows() -> bool:
    """Whether this process is a rank that follows another."""
    return _started is not None and _started.rank > 0


def several() -> bool:
    """Whether ranks train together at this moment."""
    return _together


def world() -> int:
    """How many ranks train together at this moment."""
    return _started.world if _together and _started else 1


def rank() -> int:
    """Which of the ranks that train together this is."""
    return _started.rank if _together and _started else 0


def local() -> int:
    """This process's number on its machine among the ranks that have met; 0 where it is alone."""
    return _started.local if _started else 0


def require_agreement(trainer: TrainerConfig, folder: Path) -> None:
    """Have as many processes as the config asks for: start them where that is simple.

    With `trainer.devices=N` and a strategy for several, in a process that was started alone, this process becomes
    torchrun with N of them.

    Args:
        folder: that Hydra has made for this process; removed where another process will make one.

    Raises:
        ConfigError: the strategy, the number of devices and the processes that were started do not fit together.
    """
    found = started()
    if trainer.strategy == "auto":
        if "TORCHELASTIC_RUN_ID" in os.environ and found.world > 1:
            raise ConfigError(f"trainer.strategy=auto: {found.world} processes were started, which only trainer=ddp "
                              "or trainer=fsdp can use")  # fmt: skip
        return
    if found.world == 1 and trainer.devices is None:
        raise ConfigError(
            f"trainer.strategy={trainer.strategy}: only one process was started; use torchrun --nproc-per-node 2 "
            f"-m lockdec.run trainer={trainer.strategy}, or give trainer.devices=2"
        )
    if found.world == 1 and trainer.devices is not None and trainer.devices > 1:
        with suppress(OSError):
            folder.rmdir()
        _become_torchrun(trainer.devices)
    if trainer.devices not in (None, found.nearby):
        raise ConfigError(f"trainer.devices={trainer.devices}: {found.nearby} processes were started on this machine; "
                          "leave it out")  # fmt: skip


def _become_torchrun(processes: int) -> NoReturn:
    sys.stdout.flush()
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "lockdec.run"]
    os.environ.pop("HYDRA_FULL_ERROR", None)  # `lockdec.run` has set it
    os.execv(sys.executable, [sys.executable, *command, *sys.argv[1:]])


def join(trainer: TrainerConfig) -> None:
    """Meet the other ranks, where there are any and they have not met.

    Raises:
        LostRankError: they did not come within `PATIENCE`.
    """
    global _started, _control
    found = started()
    if trainer.strategy == "auto" or found.world == 1 or _started is not None:
        return
    import torch
    from torch import distributed

    environment = _environment()
    on_gpu = trainer.accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(found.local)
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            init_method=f"tcp://{environment.main_address}:{environment.main_port}"
            if "TORCHELASTIC_RUN_ID" not in os.environ
            else "env://",
            rank=found.rank,
            world_size=found.world,
            timeout=PATIENCE,
        )
        _control = distributed.new_group(backend="gloo", timeout=ORDERS)
    except distributed.DistError as error:
        raise LostRankError(f"the {found.world} ranks of this job did not meet: {error}") from error
    _started = found


def leave() -> None:
    """Part from the other ranks once all is done; threads that still serve them would abort the exit."""
    global _started, _control
    if _started is not None and not _broken:
        from torch import distributed

        distributed.destroy_process_group()
        _started = _control = None


def _environment() -> ClusterEnvironment:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return TorchElasticEnvironment() if "TORCHELASTIC_RUN_ID" in os.environ else SLURMEnvironment()


@contextmanager
def together() -> Iterator[None]:
    """Within this block the ranks that have met act as one. What ends it early ends the whole job, but for `agreed`."""
    global _together, _broken
    _together = _started is not None
    try:
        yield
    except BaseException as error:
        _broken = _broken or (_together and not getattr(error, "agreed", False))
        raise
    finally:
        _together = False


def order(what: dict[str, Any]) -> None:
    """Have the ranks that follow do something; see `lockdec.pipeline.following`."""
    if _started is not None and not _broken:
        _broadcast(what)


def next_order() -> dict[str, Any]:
    """What the first rank wants done next."""
    found: dict[str, Any] = _broadcast(None)
    return found


def agree(value: Any) -> Any:
    """The first rank's value, at every rank: any JSON."""
    return _broadcast(value) if _together else value


def _broadcast(value: Any) -> Any:
    import torch
    from torch import distributed

    with _connected():
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        distributed.broadcast(length, 0, group=_control)
        content = content if not follows() else torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(content, 0, group=_control)
        return json.loads(bytes(content.tolist()))


def highest(number: int) -> int:
    """The highest of the ranks' numbers, at every rank."""
    if not _together:
        return number
    import torch
    from torch import distributed

    with _connected():
        mine = torch.tensor(number)
        distributed.all_reduce(mine, distributed.ReduceOp.MAX)
        return int(mine)


def mean(value: Tensor) -> Tensor:
    """The mean over the ranks, at every rank."""
    if not _together:
        return value
    from torch import distributed

    with _connected():
        summed = value.detach().clone()
        distributed.all_reduce(summed)
        return summed / world()


def share(real: Bool[Tensor, "b t"]) -> tuple[slice, Tensor | float]:
    """Which rows of a batch are this rank's, and the weight of their mean loss.

    The mean over the ranks of (weight x mean over a rank's real tokens) is the mean over all real tokens of the
    batch. A rank for which there is no row takes the first, with weight 0. What is drawn at random after this differs
    between ranks.

    Args:
        real: the tokens that are predicted in each row.
    """
    if not _together:
        return slice(None), 1.0
    import torch

    # Whatever was drawn until now was drawn for the whole batch.
    torch.manual_seed(torch.initial_seed() + 15_485_863 * rank())
    if rank() >= len(real):
        return slice(0, 1), 0.0
    rows = slice(rank(), None, world())
    return rows, world() * real[rows].sum() / real.sum()


def strategy(trainer: TrainerConfig) -> dict[str, Any]:
    """What lightning's Trainer has to be given to train with these ranks, or alone."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    if not _together or _started is None:
        alone = [LightningEnvironment()] if _started is not None else []
        return {"strategy": "auto", "devices": 1 if alone else trainer.devices or 1, "num_nodes": 1, "plugins": alone}
    ranks: Strategy = DDPStrategy(timeout=PATIENCE)
    if trainer.strategy == "fsdp":
        ranks = ModelParallelStrategy(_started.world, 1, save_distributed_checkpoint=False, timeout=PATIENCE)
    nodes = _started.world // _started.nearby
    return {"strategy": ranks, "devices": _started.nearby, "num_nodes": nodes, "plugins": [_environment()]}


def shard(model: LockingDecoderModel, mesh: Any) -> LockingDecoderModel:
    """A copy of the model of which each rank keeps its part alone; layers are gathered when they are needed (FSDP2).

    Args:
        mesh: lightning's; None under any other strategy, where the model itself is returned.
    """
    if mesh is None or model in _wholes:
        return model
    from torch import nn
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import DTensor, distribute_tensor

    # Copied without its weights, which would not fit a second time.
    empty = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    copy = deepcopy(model, empty)
    for layer in copy.decoder.layers:
        fully_shard(layer, mesh=mesh["data_parallel"])
        register_fsdp_forward_method(layer, "remember")
        register_fsdp_forward_method(layer, "look")
    fully_shard(copy, mesh=mesh["data_parallel"])
    for name in ("hidden", "real_hidden", "logits", "look"):
        register_fsdp_forward_method(copy, name)
    weights = dict(model.named_parameters())
    parts = {}
    for name, part in copy.named_parameters():
        assert isinstance(part, DTensor)
        parts[name] = distribute_tensor(weights[name].detach(), part.device_mesh, part.placements)
    copy.load_state_dict(parts, strict=False, assign=True)
    _wholes[copy] = model
    return copy


def gather(module: L.LightningModule) -> None:
    """Put the trained weights of sharded models together, in the model they are a copy of, at the first rank."""
    import torch

    for part in module.children():
        if part in _wholes:
            weights = dict(_wholes[part].named_parameters())
            for name, weight in part.named_parameters():
                trained = whole(weight.detach())
                if rank() == 0:
                    with torch.no_grad():
                        weights[name].copy_(trained)


def whole(value: torch.Tensor) -> torch.Tensor:
    """The tensor itself, put together from the ranks' parts where it is sharded."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def own(value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor; any other tensor itself."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch's backends raise
        if gone := lost(error):
            raise gone from error
        raise


def lost(error: BaseException) -> LostRankError | None:
    """What to say where this is the error of a backend whose peer is gone."""
    from torch import distributed

    of_backend = isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if not of_backend or isinstance(error, LockdecError):
        return None
    return LostRankError("another rank of this job is gone; the same command goes on from the last checkpoint")
