"""How long until a captioner is as good: lockdec's bridge, LoRA and full finetuning, on one decoder and support set.

    python -m benchmarks.race RUN                       all three, one after the other
    python -m benchmarks.race RUN --only lora --rate 1e-3

RUN is the folder of a finished run with an imported decoder and without `adapt`; its stages provide the decoder, the
support set and the stored states of its encoder. LoRA and full finetuning are of transformers and PEFT: the states,
averaged over the cells of a grid, are projected linearly to embeddings that stand before the prompt (LiMBeR, Merullo et
al. 2023), and AdamW trains the projection with LoRA matrices in all linear layers, or with every weight. Each system
captions the same validation inputs, greedily, every few steps. Its clock runs only while it trains or prepares to.
"""

from __future__ import annotations

import argparse
import gc
import math
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.worker import resident_mb
from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.config.schema import register
from lockdec.data.captions import spread
from lockdec.data.fewshot import Pair
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.captioner import EncodedCaptioner
from lockdec.evaluation.finished import FinishedRun, find_run
from lockdec.evaluation.metrics import score
from lockdec.evaluation.stored import load_captioner, load_prompt, load_tokenizer
from lockdec.optimizers.optimization import OptimizerConfig, configure
from lockdec.pipeline.assembling import build_stages
from lockdec.runtime import acceleration
from lockdec.stages.evaluate import Evaluate
from lockdec.stages.finetune import Finetune
from lockdec.training.batching import SupportDataModule
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.models import LockingDecoderModel

SYSTEMS = ("lockdec", "lora", "full")
CAPTIONED = 100  # validation inputs, evenly spaced
METRICS = {"token F1": "token_f1", "exact": "exact", "CIDEr-D": "cider_d", "chrF": "chrf"}


class Race:
    """What all systems have in common, read from a finished run."""

    def __init__(self, run: FinishedRun) -> None:
        register()
        order = run.config["pipeline"]["order"]
        stages = build_stages({name: plain(run.config["stages"][name]) for name in order}, Builder())
        self.finetune, self.evaluate = cast(Finetune, stages["finetune"]), cast(Evaluate, stages["evaluate"])
        self.run, self.data = run, self.finetune.data
        self.encoded = EncodedSet.open(run.artifact("attach").folder)
        prompt = load_prompt(run.artifact("finetune"))
        self.tokenizer: Tokenizer = load_tokenizer(*run.decoder).with_prompt(prompt)
        self.pairs: list[Pair] = self.finetune.support
        self.rows = spread(list(self.data.splits["val"]), CAPTIONED)
        self.references = [self.data.captions[row] for row in self.rows]

    def batches(self, steps: int, max_len: int) -> SupportDataModule:
        """The support set, in the batches of the finetune stage."""
        fit = self.finetune.fit
        return SupportDataModule(
            self.tokenizer,
            self.pairs,
            self.encoded,
            batch_size=fit.batch_size,
            max_len=max_len,
            steps=steps,
            seed=self.finetune.seed,
        )


class System(ABC):
    """A captioner that trains."""

    model: nn.Module
    optimizer: OptimizerConfig

    @abstractmethod
    def prepare(self, steps: int) -> Iterator[Any]:
        """The batches of the training; what this does is timed."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """What a step lowers."""

    @abstractmethod
    def captions(self) -> list[str]:
        """Of the validation inputs."""

    def trained(self) -> list[nn.Parameter]:
        """What an optimizer changes."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


class Bridge(System):
    """lockdec, as the finetune stage trains it."""

    def __init__(self, race: Race) -> None:
        self.race = race
        model = load_captioner(*race.run.decoder, race.run.artifact("unlock"))
        assert isinstance(model, LockingDecoderModel)  # not hosted
        self.model: LockingDecoderModel = model
        prompt, eos = len(race.tokenizer.prompt_tokens), race.tokenizer.special.eos
        self.module = race.finetune.module(self.model, eos, prompt)
        self.optimizer = race.finetune.fit.optimizer

    def prepare(self, steps: int) -> Iterator[Any]:
        batches = self.race.batches(steps, self.model.config.max_len)
        layers = self.model.decoder.below_cross_attention
        if layers:
            batches.prefix = FrozenPrefix(self.model, batches.sequences, layers, Path())
        return iter(batches.train_dataloader())

    def loss(self, batch: Any) -> Tensor:
        return self.module.objective(batch)

    def captions(self) -> list[str]:
        race = self.race
        captioner = EncodedCaptioner(
            self.model, race.tokenizer, race.encoded, race.evaluate.decode, torch.device("cpu")
        )
        return [caption.text for caption in captioner.captions(race.rows, "captioning")]


class Projected(System):
    """A causal language model of transformers that reads projected states before its prompt.

    Args:
        lora: the rank of LoRA matrices in all linear layers; 0 trains every weight.
        states: how many embeddings stand before the prompt: means over equal parts of the encoder's states.
        rate: AdamW's learning rate.
    """

    def __init__(self, race: Race, lora: int, states: int, rate: float) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        self.race, self.states = race, states
        path = Path(race.run.config["decoder"]["path"])
        source = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
        folder = path.parent if source else path
        language: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **source)
        if lora:
            language = get_peft_model(
                language, LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM")
            )
        self.language = language
        self.project = nn.Linear(race.encoded.dim, language.config.hidden_size)
        self.model = nn.ModuleDict({"language": language, "project": self.project}).train()
        self.optimizer = OptimizerConfig(
            learning_rate=rate,
            weight_decay=0.01,
            betas=[0.9, 0.999],
            warmup_steps=race.finetune.fit.optimizer.warmup_steps,
            schedule="cosine",
            clip_norm=1.0,
        )

    def prepare(self, steps: int) -> Iterator[Any]:
        return iter(self.race.batches(steps, self.language.config.max_position_embeddings).train_dataloader())

    def visual(self, states: Tensor) -> Tensor:
        """(b, states, d_model), about as large as the embeddings of words."""
        pooled = torch.stack([part.mean(1) for part in states.tensor_split(self.states, dim=1)], dim=1)
        projected: Tensor = self.project(pooled.float())
        return projected

    def embedded(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.language.get_input_embeddings()(tokens)
        return found

    def loss(self, batch: Any) -> Tensor:
        special, prompt = self.race.tokenizer.special, len(self.race.tokenizer.prompt_tokens)
        ended = (batch.tokens == special.eos).cumsum(1) - (batch.tokens == special.eos).long()
        targets = batch.tokens.masked_fill(ended > 0, -100)
        targets[:, : 1 + prompt] = -100
        visual = self.visual(batch.encoded.states)
        nothing = targets.new_full(visual.shape[:2], -100)
        inputs = torch.cat([visual, self.embedded(batch.tokens)], dim=1)
        found: Tensor = self.language(inputs_embeds=inputs, labels=torch.cat([nothing, targets], dim=1)).loss
        return found

    @torch.inference_mode()
    def captions(self) -> list[str]:
        tokenizer, decode = self.race.tokenizer, self.race.evaluate.decode
        start = torch.tensor([[tokenizer.special.bos, *tokenizer.prompt_tokens]])
        self.model.eval()
        found: list[str] = []
        for at in range(0, len(self.race.rows), decode.batch_size):
            visual = self.visual(self.race.encoded.batch(self.race.rows[at : at + decode.batch_size]).states)
            inputs = torch.cat([visual, self.embedded(start).expand(len(visual), -1, -1)], dim=1)
            tokens = self.language.generate(
                inputs_embeds=inputs,
                attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
                max_new_tokens=decode.max_new_tokens,
                do_sample=False,
                repetition_penalty=1.0,
                eos_token_id=tokenizer.special.eos,
                pad_token_id=tokenizer.special.eos,
            )
            found += [tokenizer.decode(row) for row in tokens.tolist()]
        self.model.train()
        return found


def run(system: System, race: Race, steps: int, every: int) -> Iterator[dict[str, str]]:
    """Train, and every few steps yield a row: the seconds of training, the most memory, the metrics."""
    for weights in system.model.state_dict().values():
        weights.sum()  # what is mapped from a file is in memory once it has been read
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is the present memory
    before = resident_mb("VmRSS")
    started = time.monotonic()
    batches = system.prepare(steps)
    made = configure(system.trained(), system.optimizer, steps)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seconds = time.monotonic() - started
    torch.manual_seed(race.finetune.seed)
    losses: list[float] = []
    peak: float | None = None
    for step in range(1, steps + 1):
        started = time.monotonic()
        loss = system.loss(next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(system.trained(), system.optimizer.clip_norm or math.inf)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seconds += time.monotonic() - started
        losses.append(loss.item())
        if step % every == 0 or step == steps:
            if peak is None:  # before the first captioning, which has memory of its own
                peak = resident_mb("VmHWM") - before
            metrics = score(system.captions(), race.references)
            yield {
                "trained": f"{sum(parameter.numel() for parameter in system.trained()):,}",
                "steps": f"{step}",
                "seconds": f"{seconds:.0f}",
                "memory, MB": f"{peak:,.0f}",
                "training loss": f"{sum(losses[-every:]) / len(losses[-every:]):.3f}",
                **{name: f"{metrics[key]:.3f}" for name, key in METRICS.items()},
            }


def build(name: str, race: Race, given: argparse.Namespace) -> System:
    """One of `SYSTEMS`."""
    if name == "lockdec":
        return Bridge(race)
    return Projected(race, given.rank if name == "lora" else 0, given.states, given.rate or RATES[name])


RATES = {"lora": 1e-3, "full": 1e-4}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table in Markdown for each system, a row for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", choices=SYSTEMS, help="in this process; otherwise each has a process of its own")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps between two measurements")
    parser.add_argument("--rank", type=int, default=8, help="of LoRA")
    parser.add_argument("--states", type=int, default=4, help="embeddings before the prompt, for LoRA and full")
    parser.add_argument("--rate", type=float, help=f"AdamW's learning rate; otherwise {RATES}")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    if given.only is None:
        for name in SYSTEMS:
            subprocess.run([sys.executable, "-m", "benchmarks.race", *sys.argv[1:], "--only", name], check=True)
        return
    torch.set_num_threads(given.threads)
    if given.only == "lockdec":
        acceleration.keep_memory()
        acceleration.multiply_exactly()
    race = Race(find_run(given.run))
    head = ["system", "trained", "steps", "seconds", "memory, MB", "training loss", *METRICS]
    print(f"| {' | '.join(head)} |", "|" + "---|" * len(head), sep="\n", flush=True)
    for row in run(build(given.only, race, given), race, given.steps, given.every):
        print(f"| {' | '.join([given.only, *row.values()])} |", flush=True)


if __name__ == "__main__":
    main()
