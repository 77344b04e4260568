"""Captioners of every kind of input, without a pipeline: real encoders, and a decoder with random weights."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from lockdec.bridges.prefix import LinearPrefix
from lockdec.data.tokenizer import train_tokenizer
from lockdec.encoders.contract import Encoder
from lockdec.encoders.features import Features
from lockdec.encoders.normalisation import Normalisation
from lockdec.encoders.sound import LogMel
from lockdec.encoders.vae import VAE
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.finished import CaptionerParts
from lockdec.library.captioner import Captioner
from lockdec.play.player import Opening, Player, open_players
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, LockingDecoderModel
from tests.conftest import TinyRun, run_tiny
from tests.encoders.kinds import TEXTS, autoencoder, mlm


def captioner(encoder: Encoder, bridge: Bridge | None = None) -> Captioner:
    """A captioner of what an encoder reads, of which each input has its own; with a bridge it does not attend."""
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    model = LockingDecoderModel(
        DecoderConfig(vocab_size=tokenizer.vocab_size, max_len=16, d_model=16, layers=2, heads=2, d_ff=32)
    ).eval()
    if bridge is None:
        model.attach(CrossAttentionConfig(heads=2, d_q=4, d_k=4, d_v=4, unlock="plain"), encoder_dim=encoder.dim)
    else:
        bridge.draw(model, encoder.dim)
        model.attach_bridge(bridge)
    model.unlock()
    decode = EvaluateConfig(split="test", batch_size=4, seed=0, max_new_tokens=6, min_new_tokens=2)
    generator = torch.Generator().manual_seed(0)
    plugs = () if bridge else ("default",)
    return Captioner(
        CaptionerParts(encoder, Normalisation(), model, tokenizer, decode, generator, plugs=plugs, bridge=bridge)
    )


@pytest.fixture(scope="session")
def hearing() -> Captioner:
    """It hears a second of a sound."""
    return captioner(LogMel(seconds=1, pool=10))


@pytest.fixture(scope="session")
def talking(tiny: TinyRun) -> TinyRun:
    """The tiny run, made to say something: a decoder of twenty steps would rather say nothing."""
    return run_tiny(tiny.outputs, "talking", "evaluate.min_new_tokens=6", "evaluate.repetition_penalty=4")


@pytest.fixture(scope="session")
def players(talking: TinyRun, hearing: Captioner) -> Mapping[str, Player]:
    """By what they read: a finished run that reads pictures, and captioners of texts, sounds and arrays.

    The last, `prefix`, reads pictures too, is no run, and does not attend.
    """
    others = {"text": captioner(mlm()), "sound": hearing, "array": captioner(Features(dim=3))}
    others["prefix"] = captioner(autoencoder(VAE), LinearPrefix(length=2))
    [run] = open_players([str(talking.folder)], Opening())
    return {"image": run} | {
        name: Player(f"runs/{name}", name, one, Opening(), [("encoder", name)]) for name, one in others.items()
    }


@pytest.fixture(scope="session")
def tone() -> bytes:
    """Two seconds of a tone, as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(32_000) / 8), 16_000, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is wider than high."""
    path = tmp_path_factory.mktemp("pictures") / "a picture.png"
    Image.linear_gradient("L").resize((120, 80)).convert("RGB").save(path)
    return path
