"""Values that nobody would give a key on purpose, in the place of every value of a config.

`python -m tests.pipeline.odd_values debug=tiny experiment=music` puts each of them into each key of that run, assembles
and rehearses it, and counts how many were refused in one line, before any work. What raises anything else is printed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.building import Builder
from lockdec.config.overrides import arranged
from lockdec.config.schema import config_folder
from lockdec.data.captions import CaptionSet
from lockdec.data.text import TextSource
from lockdec.encoders.contract import Encoder
from lockdec.errors import LockdecError
from lockdec.pipeline.assembling import assemble
from lockdec.run import NO_OPTION, OF_NULL
from lockdec.stages.stage import Stage
from tests.conftest import composed

VALUES = ("-1", "0", "1000000000000", "1.5", "[]", "{a: 1}", "abc", "null", "lockdec.nowhere.Nothing")


def keys(config: DictConfig) -> list[str]:
    """The dotted keys of a config that are read: no references, and no sections of stages that do not run."""
    options = {path.stem for path in (config_folder() / "stage").glob("*.yaml")}
    unread = options - set(config.pipeline.order)
    return [key for key in _keys(config) if not {key.split(".")[0], key.removeprefix("stages.").split(".")[0]} & unread]


def _keys(config: DictConfig, above: str = "") -> Iterator[str]:
    for name in map(str, config):
        if OmegaConf.is_interpolation(config, name):
            continue
        yield above + name
        inner = config._get_node(name)
        if isinstance(inner, DictConfig) and not inner._is_none():
            yield from _keys(inner, f"{above}{name}.")


class Trial:
    """A run whose keys are given odd values, without any work. What it has built once is built no more."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides, self.builder = list(overrides), Builder()
        self.config = self.composed()
        self.outcome()

    def composed(self, *more: str) -> DictConfig:
        return composed(*arranged([*self.overrides, *more]))

    def outcome(self, *more: str) -> str:
        """`accepted`, `refused`, or what was raised that is no refusal."""
        try:
            assembly = assemble(self.composed(*more), self.builder.keeping(CaptionSet, TextSource, Encoder))
            before: dict[str, Stage] = {}
            for name, stage in assembly.stages.items():
                stage.rehearse(torch.device("cpu"), before, assembly.keys)
                before[name] = stage
        except (LockdecError, HydraException, OmegaConfBaseException):
            return "refused"
        except Exception as error:
            known = any(text in str(error) for text in (OF_NULL, NO_OPTION))  # which the command says in one line, too
            return "refused" if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
        return "accepted"


def main(overrides: Sequence[str]) -> None:
    """Print what was neither refused nor accepted, and the counts."""
    counts = Counter[str]()
    trial = Trial(overrides)
    every = keys(trial.config)
    for key in every:
        for value in VALUES:
            outcome = trial.outcome(f"{key}={value}")
            if outcome not in ("refused", "accepted"):
                print(f"{key}={value}: {outcome[:200]}", flush=True)
                outcome = "raised something else"
            counts[outcome] += 1
    print(f"{len(every)} keys: " + ", ".join(f"{counts[one]} {one}" for one in sorted(counts)))


if __name__ == "__main__":
    main(sys.argv[1:])
