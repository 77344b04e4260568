"""Several processes that train one model: the rank of this process, and communication between ranks.

torchrun or SLURM starts the processes, the *ranks*. Rank 0 leads: it alone decides what is made, holds locks and
writes files; the others follow its orders (`lockdec.pipeline.following`). Only the training of some
stages is done by all ranks `together`. Within such a block, each rank takes its share of every batch, weighted by its
real tokens, so that a step equals the step of a single process. Outside such a block, all functions here answer as in a
single process.

Ranks exchange JSON and tensors, so nothing is unpickled. If a rank dies, its connections close, which ends the others
at once; if it hangs in training, the others end after `PATIENCE`.
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
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
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

Model = TypeVar("Model")  # a `LockingModel`

PATIENCE = timedelta(minutes=30)  # how long ranks wait for each other in training
ORDERS = timedelta(days=7)  # how long the other ranks wait for rank 0 to finish what it does alone


class LostRankError(LockdecError):
    """Another rank is gone, so this one cannot continue."""


class FollowedError(BaseException):
    """Ends the part of a stage that a follower takes part in."""

    agreed = True


@dataclass(frozen=True)
class Started:
    """How many processes were started for this job, and which one this is.

    Attributes:
        rank: 0 <= rank < world.
        world: the number of processes.
        local: the rank of this process on its machine.
        nearby: the number of processes on each machine.
    """

    rank: int
    world: int
    local: int
    nearby: int


_started: Started | None = None  # set once the ranks are connected
_control: Any = None  # the process group for orders
_together = _broken = False
_wholes: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # the original of each sharded model


def started() -> Started:
    """What torchrun or `srun` says in the environment; without them, a single process. Needs no torch."""
    found = os.environ
    if "TORCHELASTIC_RUN_ID" in found:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Started(*(int(found[name]) for name in names))
    if "SLURM_STEP_ID" in found and int(found.get("SLURM_NTASKS", 1)) > 1:  # a step, not the script of a batch job
        world = int(found["SLURM_NTASKS"])
        nearby = world // int(found.get("SLURM_NNODES", 1))
        return Started(int(found["SLURM_PROCID"]), world, int(found["SLURM_LOCALID"]), nearby)
    return Started(0, 1, 0, 1)


def broken() -> bool:
    """Whether the ranks have lost their connection, so that this job can only end."""
    return _broken


def follows() -> bool:
    """Whether this process is a follower, which is any rank but 0."""
    return _started is not None and _started.rank > 0


def several() -> bool:
    """Whether several ranks are training together now."""
    return _together


def world() -> int:
    """How many ranks are training together now."""
    return _started.world if _together and _started else 1


def rank() -> int:
    """The rank of this process among those that are training together now."""
    return _started.rank if _together and _started else 0


def local() -> int:
    """The rank of this process on its machine; 0 if it is not connected to others."""
    return _started.local if _started else 0


def require_agreement(trainer: TrainerConfig, folder: Path) -> None:
    """Make sure that as many processes run as the config asks for; start them if that is simple.

    With `trainer.devices=N` and a strategy for several devices, a process that was started alone becomes torchrun with
    N processes.

    Args:
        trainer: its strategy and devices.
        folder: the one that Hydra has made for this process; removed if another process will make its own.

    Raises:
        ConfigError: the strategy, the number of devices and the number of processes do not fit together.
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
    """Connect to the other ranks, if there are any and they are not connected yet.

    Raises:
        LostRankError: they did not connect within `PATIENCE`.
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
        raise LostRankError(f"the {found.world} ranks of this job did not connect: {error}") from error
    _started = found


def leave() -> None:
    """Disconnect from the other ranks at the end, since threads that still serve them would abort the exit."""
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
    """Within this block, connected ranks act as one. An exception in it ends the whole job, unless it is `agreed`."""
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
    """Give the followers an order; see `lockdec.pipeline.following`."""
    if _started is not None and not _broken:
        _broadcast(what)


def next_order() -> dict[str, Any]:
    """The next order of rank 0."""
    found: dict[str, Any] = _broadcast(None)
    return found


def agree(value: Any) -> Any:
    """The value of rank 0, on every rank: any JSON value."""
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
    """The largest of the numbers of all ranks, on every rank."""
    if not _together:
        return number
    import torch
    from torch import distributed

    with _connected():
        mine = torch.tensor(number)
        distributed.all_reduce(mine, distributed.ReduceOp.MAX)
        return int(mine)


def mean(value: Tensor) -> Tensor:
    """The mean over the ranks, on every rank."""
    if not _together:
        return value
    from torch import distributed

    with _connected():
        summed = value.detach().clone()
        distributed.all_reduce(summed)
        return summed / world()


def share(real: Bool[Tensor, "b t"]) -> tuple[slice, Tensor | float]:
    """This rank's rows of a batch, and the weight of their mean loss.

    The mean over the ranks of (weight x mean over the real tokens of a rank) is the mean over all real tokens of the
    batch. If a batch has too few rows, the remaining ranks take the first row with weight 0. Random numbers drawn after
    this call differ between ranks.

    Args:
        real: which tokens of each row are targets.
    """
    if not _together:
        return slice(None), 1.0
    import torch

    # Random numbers drawn until now were for the whole batch.
    torch.manual_seed(torch.initial_seed() + 15_485_863 * rank())
    if rank() >= len(real):
        return slice(0, 1), 0.0
    rows = slice(rank(), None, world())
    return rows, world() * real[rows].sum() / real.sum()


def strategy(trainer: TrainerConfig) -> dict[str, Any]:
    """The arguments of Lightning's Trainer to train with these ranks, or alone."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    if not _together or _started is None:
        # Of its own accord, Lightning would take part in a job of SLURM, though one process was started in it.
        devices = 1 if _started is not None else trainer.devices or 1
        return {"strategy": "auto", "devices": devices, "num_nodes": 1, "plugins": [LightningEnvironment()]}
    ranks: Strategy = DDPStrategy(timeout=PATIENCE)
    if trainer.strategy == "fsdp":
        ranks = ModelParallelStrategy(_started.world, 1, save_distributed_checkpoint=False, timeout=PATIENCE)
    nodes = _started.world // _started.nearby
    return {"strategy": ranks, "devices": _started.nearby, "num_nodes": nodes, "plugins": [_environment()]}


def shard(model: Model, mesh: Any) -> Model:
    """A copy of the model, sharded over the ranks, whose layers are gathered when they are needed (FSDP2).

    Args:
        model: the same on every rank.
        mesh: Lightning's device mesh; None under any other strategy, in which case the model itself is returned.
    """
    if mesh is None or model in _wholes:
        return model
    from torch import nn
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import DTensor, distribute_tensor

    from lockdec.transformer.models import LockingDecoderModel

    if not isinstance(model, LockingDecoderModel):
        raise ConfigError("trainer.strategy=fsdp: a hosted decoder is not sharded; use ddp, or import it")
    # Copied without its weights, which might not fit twice.
    empty = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    copy: Any = deepcopy(model, empty)
    for layer in copy.decoder.layers:
        fully_shard(layer, mesh=mesh["data_parallel"])
        register_fsdp_forward_method(layer, "remember")
        register_fsdp_forward_method(layer, "attention_map")
    fully_shard(copy, mesh=mesh["data_parallel"])
    for name in ("hidden", "real_hidden", "logits", "attention_maps"):
        register_fsdp_forward_method(copy, name)
    weights = dict(model.named_parameters())
    parts = {}
    for name, part in copy.named_parameters():
        assert isinstance(part, DTensor)
        parts[name] = distribute_tensor(weights[name].detach(), part.device_mesh, part.placements)
    copy.load_state_dict(parts, strict=False, assign=True)
    _wholes[copy] = model
    return cast(Model, copy)


def gather(module: L.LightningModule) -> None:
    """On rank 0, copy the trained weights of sharded models into the models they were copied from."""
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
    """The full tensor, gathered from all ranks if it is sharded."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def own(value: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor; a tensor that is not sharded, itself."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # raised by the backends of torch
        if gone := lost(error):
            raise gone from error
        raise


def lost(error: BaseException) -> LostRankError | None:
    """The error to raise if a backend reports that its peer is gone; None for any other error."""
    from torch import distributed

    of_backend = isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if not of_backend or isinstance(error, LockdecError):
        return None
    return LostRankError("another rank of this job is gone; run the same command to continue from the last checkpoint")
