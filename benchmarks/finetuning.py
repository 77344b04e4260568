"""A finetuning step on real captions: only cross-attention trains, the decoder is frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from benchmarks import defaults
from benchmarks.decoders import Optimized, adamw, gpt2, muon, train_step
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.encoders.encoded import normalised
from lockdec.training.batching import CaptionBatch

TITLE = (
    "A finetuning step on the 256 drawings of the default support set at default sizes (d_model 192, 4 layers, 8 "
    "heads of cross-attention over 64 states of 149 channels, 32 captions a batch). The GPT-2 of transformers has "
    "as many layers, trains its own cross-attention and a projection of the states to its width, and pads to the "
    "longest caption of a batch; in the loop it encodes the drawings of the batch with EfficientNet-Lite0. All use "
    "fused AdamW; lockdec is also measured with Muon, its default, which needs a third of the steps"
)
UNIT = "captions"
GOALS = {"transformers": 1.5, "transformers, encoder in the loop": 5.0}


def step(
    loss: Callable[[CaptionBatch], Tensor], parameters: list[nn.Parameter], optimized: Optimized = adamw
) -> Subject:
    """A training step over the batches of the finetune stage, one after the other."""
    batches = iter(defaults.support().train_dataloader())
    run = train_step(parameters, lambda: loss(defaults.on_device(next(batches))), optimized)
    return Subject(run, work=defaults.finetune().fit.batch_size)


def ours(optimized: Optimized = adamw) -> Subject:
    """The step of the finetune stage, including noise and dropped states."""
    module = defaults.captioning(defaults.captioner())
    module.model.eval()  # as the stage has it: the frozen decoder's dropout is off
    return step(module.objective, list(module.model.cross_attention_parameters().values()), optimized)


class Looking(nn.Module):
    """GPT-2 with cross-attention over projected states."""

    def __init__(self) -> None:
        super().__init__()
        config = defaults.pretrain().decoder
        self.gpt2 = gpt2(config, cross_attention=True)
        self.project = nn.Linear(defaults.encoded().dim, config.d_model)
        self.requires_grad_(False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("crossattention" in name or "ln_cross" in name or "project" in name)
        self.to(device()).eval()

    def loss(self, batch: CaptionBatch) -> Tensor:
        """Mean cross-entropy over the captions of a batch."""
        real = batch.tokens != defaults.tokenizer().special.pad
        found: Tensor = self.gpt2(
            input_ids=batch.tokens,
            attention_mask=real,
            encoder_hidden_states=self.project(batch.encoded.states),
            encoder_attention_mask=batch.encoded.mask,
            labels=batch.tokens.masked_fill(~real, -100),
        ).loss
        return found


def cached() -> Subject:
    """transformers, fed the stored states."""
    looking = Looking()
    return step(looking.loss, list(looking.parameters()))


def in_the_loop() -> Subject:
    """transformers, encoding the drawings of every batch from memory."""
    looking, encoder = Looking(), defaults.encoder().to(device())
    shown = [pair.index for pair in defaults.pairs()]
    drawings = dict(zip(shown, defaults.finetune().data.inputs(shown), strict=True))
    normalisation = defaults.encoded().normalisation

    def loss(batch: CaptionBatch) -> Tensor:
        encoded = normalised(encoder.encode([drawings[row] for row in batch.rows.tolist()]), normalisation)
        return looking.loss(batch._replace(encoded=encoded.to(device())))

    return step(loss, list(looking.parameters()))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """lockdec with either optimizer, and transformers with stored states and with an encoder."""
    return {
        "lockdec": ours,
        "lockdec with Muon": lambda: ours(muon),
        "transformers": cached,
        "transformers, encoder in the loop": in_the_loop,
    }
