"""One captioner, twice: a finetuned model of lockdec, and the same function as a GPT-2 of `transformers`.

The captioner is the default pipeline's, with the only cross-attention that GPT-2 can have (heads and head sizes of its
self-attention) and a shorter finetuning, after which captions read and end like real ones. What its run needs and the
store ($LOCKDEC_OUTPUTS, or outputs/) lacks is made, once: a few minutes from nothing, seconds where it was made before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.decoders import gpt2
from benchmarks.side_by_side import Subject
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.finished import find_run
from lockdec.evaluation.stored import load_captioner, load_tokenizer
from lockdec.transformer.decoding.tokens import SpecialTokens
from lockdec.transformer.importing.gpt2 import gpt2_weights
from lockdec.transformer.models import Encoded, LockingDecoderModel

LONGEST = 32  # tokens of a caption
RUN = "benchmark"
OVERRIDES = ("cross_attention.heads=6", "cross_attention.d_k=32", "cross_attention.d_v=32", "finetune.steps=300")


class Captioner(NamedTuple):
    """A finetuned model, its special tokens, and the cached states of the held-out drawings."""

    model: LockingDecoderModel
    special: SpecialTokens
    encoded: Encoded


def outputs() -> Path:
    """Where the store is."""
    return Path(os.environ.get("LOCKDEC_OUTPUTS", "outputs"))


@cache
def captioner() -> Captioner:
    """Run the pipeline, which reuses what it can, and open what it left."""
    command = [sys.executable, "-m", "lockdec.run", f"name={RUN}", "logger=none", f"paths.outputs={outputs()}"]
    subprocess.run([*command, *OVERRIDES], check=True, stdout=subprocess.DEVNULL)
    run = find_run(max((outputs() / "runs" / RUN).iterdir()))
    model = load_captioner(run.artifact("pretrain"), run.artifact("finetune"))
    assert isinstance(model, LockingDecoderModel)  # not hosted
    states = EncodedSet.open(run.artifact("attach").folder)
    lines = (run.artifact("evaluate").folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [states.ids.index(json.loads(line)["id"]) for line in lines]
    return Captioner(model, load_tokenizer(run.artifact("pretrain")).special, states.batch(rows))


def spread(inputs: int) -> Encoded:
    """The states of so many held-out drawings, evenly spaced."""
    encoded = captioner().encoded
    return encoded.index(torch.arange(inputs) * len(encoded) // inputs)


@torch.no_grad()
def as_gpt2(model: LockingDecoderModel) -> Any:
    """The same function as a GPT-2; its encoder states are as wide as the decoder, so narrower ones end in zeros."""
    sizes = model.config
    theirs = gpt2(sizes, cross_attention=True, activation_function=sizes.activation, layer_norm_epsilon=sizes.norm_eps)
    weights, ours = theirs.state_dict(), model.state_dict()
    for name, weight in gpt2_weights(weights, sizes):
        weight.copy_(ours[name])  # these are views of GPT-2's own
    for layer in range(sizes.layers):
        here, there = f"decoder.layers.{layer}.cross_attention.attention", f"transformer.h.{layer}.crossattention"
        weights[f"{there}.q_attn.weight"].copy_(ours[f"{here}.query.weight"].T)
        seen = torch.cat((ours[f"{here}.key.weight"], ours[f"{here}.value.weight"])).T  # (encoder_dim, 2 * d_model)
        weights[f"{there}.c_attn.weight"].zero_()[: len(seen)] = seen
        weights[f"{there}.c_proj.weight"].copy_(ours[f"{here}.output.weight"].T)
        for projection in ("q_attn", "c_attn", "c_proj"):
            weights[f"{there}.{projection}.bias"].zero_()
    return theirs.eval()


def lockdec(inputs: int, **options: Any) -> Subject:
    """Captions of so many drawings by lockdec; options as in `generate`."""
    model, special, _ = captioner()
    encoded = spread(inputs)
    ids: dict[str, Any] = {"bos_id": special.bos, "eos_id": special.eos, "pad_id": special.eos}
    return Subject(lambda: model.generate(encoded, **ids, max_new_tokens=LONGEST, **options), work=inputs)


def transformers(inputs: int, **options: Any) -> Subject:
    """The same captions by `generate` of transformers, with its caches on.

    Raises:
        RuntimeError: they are not the same.
    """
    model, special, _ = captioner()
    theirs = as_gpt2(model)
    encoded = spread(inputs)
    states = F.pad(encoded.states, (0, model.config.d_model - encoded.states.shape[2]))
    renamed = {name: value for name, value in options.items() if name not in ("strategy", "beams")}
    renamed |= {"num_beams": options["beams"]} if "beams" in options else {}

    def captions() -> Tensor:
        # No mask: every state is real, and to be told so would cost it time.
        tokens: Tensor = theirs.generate(
            torch.full((inputs, 1), special.bos),
            encoder_hidden_states=states,
            max_new_tokens=LONGEST,
            do_sample=False,
            use_cache=True,
            eos_token_id=special.eos,
            pad_token_id=special.eos,
            **renamed,
        )
        return tokens[:, 1:]

    ours = lockdec(inputs, **options).run()
    if not isinstance(ours, Tensor) or not torch.equal(captions(), ours):
        raise RuntimeError("lockdec and transformers, given the same weights and states, wrote different captions")
    return Subject(captions, work=inputs)
