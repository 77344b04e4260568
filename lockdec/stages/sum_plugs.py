"""Use several plugs at once that were trained apart: what each adds to a layer of the decoder is summed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from lockdec.config.schema import FewshotConfig
from lockdec.data.captions import digest
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.contract import Encoder
from lockdec.encoders.encoded import NORMALISATION, EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.encoders.together import Together
from lockdec.errors import ConfigError, StoreError
from lockdec.evaluation.finished import FinishedRun, find_run
from lockdec.evaluation.stored import put_several, trained_over
from lockdec.stages.attach import Attach
from lockdec.stages.prompting import words_of
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.unlock import Unlock
from lockdec.transformer.models import LockingModel


@dataclass(frozen=True, kw_only=True)
class SumPlugs(Unlock):
    """Takes the trained cross-attention of finished runs in the place of a fresh one; no step of finetuning follows.

    Each run has captioned the same rows by one part of the encoder, over the same decoder.

    Attributes:
        plugs: the folder of a run for each part of the encoder, in the order of their names.
        prompt, chat: of finetuning; the plugs were trained with them.
    """

    version: ClassVar[int] = 1
    neutral: ClassVar[tuple[str, ...]] = (*Unlock.neutral, "cross_attention", "seed", "chat=False")
    fingerprinted: ClassVar[tuple[str, ...]] = (*Unlock.fingerprinted, "plugs")
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.evaluation.stored",
        "lockdec.transformer.attention",
        "lockdec.transformer.cross_attention",
    )
    plugs: list[str]
    prompt: str | None = None
    chat: bool = False

    @cached_property
    def _runs(self) -> list[FinishedRun]:
        return [find_run(Path(folder)) for folder in self.plugs]

    @cached_property
    def _dtypes(self) -> set[str]:
        """The precisions that the runs have recorded."""
        return {dtype for run in self._runs if (dtype := trained_over(run.artifact("finetune"))) is not None}

    def check(self) -> None:
        if len(self.plugs) < 2:
            raise ConfigError(f"bridge.plugs={self.plugs}: name a finished run for each part of the encoder")
        if self.parameters is not None:
            raise ConfigError(f"bridge.parameters={self.parameters}: plugs that are trained already have their sizes; "
                              "use null")  # fmt: skip
        if len(self._dtypes) > 1:
            raise ConfigError(f"bridge.plugs={self.plugs}: they were trained over decoders in "
                              f"{' and '.join(sorted(self._dtypes))}; name runs of one precision")  # fmt: skip
        wanted = words_of(self.prompt, self.data)
        for run in self._runs:
            section = run.result.get("prompt")
            told = section if isinstance(section, Mapping) else {}
            if (prompt := told.get("text")) != wanted:
                raise ConfigError(f"finetune.prompt={self.prompt}: {run.folder} was trained with {prompt!r}")
            if (chat := bool(told.get("chat"))) != self.chat:
                raise ConfigError(f"finetune.chat={str(self.chat).lower()}: {run.folder} was trained with "
                                  f"finetune.chat={str(chat).lower()}")  # fmt: skip

    def check_support(self, fewshot: FewshotConfig, support: Sequence[tuple[str, str]]) -> None:
        """Refuse runs that have learned from other pairs, which may be of the test split here.

        The controls would be of pairs, too, that no plug has seen.
        """
        learned = set(support)
        for run in self._runs:
            told = run.result.get("fewshot")
            for key in ("shots", "support_seed"):
                wanted = getattr(fewshot, key)
                if isinstance(told, Mapping) and (found := told.get(key, wanted)) != wanted:
                    raise ConfigError(f"fewshot.{key}={wanted}: {run.folder} was trained with {key}={found}")
            try:
                theirs = set(run.support)
            except StoreError as error:
                raise ConfigError(f"bridge.plugs: {error}; an export has no support set, so name the run") from error
            if not theirs:
                raise ConfigError(f"bridge.plugs: {run.folder} has no record of the pairs it learned from; stage "
                                  "evaluate writes it, so run its command again with all stages")  # fmt: skip
            if apart := sorted(theirs - learned) or sorted(learned - theirs):
                name, caption = apart[0]
                raise ConfigError(f"bridge.plugs: {run.folder} has learned from another support set than this run's; "
                                  f"{name} ({caption!r}) is in one of them alone. Use its data, with their splits, "
                                  "limit and case, and its fewshot")  # fmt: skip

    @property
    def dtype(self) -> str | None:
        """That in which the plugs were trained."""
        return next(iter(self._dtypes), None)

    def check_after(self, before: Mapping[str, Stage]) -> None:
        return

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        """Refuse plugs of another decoder, or of fewer or more encoders, before any stage works."""
        self._require_decoder([keys[name] for name in before if name in DecoderStage.names()])
        attach = before.get(Attach.name)
        if isinstance(attach, Attach) and isinstance(attach.encoder, Encoder):
            self._require_parts(len(attach.encoder.names) if isinstance(attach.encoder, Together) else 1)

    def fingerprints(self) -> dict[str, str]:
        return {"plugs": digest([run.artifact("finetune").key for run in self._runs])}

    def draw(self, model: LockingModel, encoded: EncodedSet, tokenizer: Tokenizer, work: Work) -> dict[str, Any]:
        parts = encoded.normalisation.parts
        self._require_decoder([artifact.key for artifact in work.decoder])
        self._require_parts(len(parts))
        for run, (_, normalisation) in zip(self._runs, parts, strict=True):
            if not Normalisation.load(run.artifact("attach").path(NORMALISATION)).alike(normalisation):
                raise ConfigError(f"bridge.plugs: {run.folder} has another encoder than the part of this run in its "
                                  "place, or another normalisation")  # fmt: skip
        put_several(model, [run.artifact("finetune") for run in self._runs])
        model.lock()
        return {"bridge": {"kind": "sum", "parameters": model.plug_parameters}}

    def _require_decoder(self, keys: list[str]) -> None:
        for run in self._runs:
            if [artifact.key for artifact in run.decoder] != keys:
                raise ConfigError(f"bridge.plugs: {run.folder} has another decoder than this run")

    def _require_parts(self, count: int) -> None:
        if count != len(self._runs):
            raise ConfigError(f"bridge.plugs={self.plugs}: {len(self._runs)} runs for an encoder of {count} "
                              f"part{'s' * (count != 1)}")  # fmt: skip
