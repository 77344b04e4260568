"""Encoders out of checkpoints: the same states as `transformers` gives, and only what is safe is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from lockdec.encoders.contract import encode_named
from lockdec.encoders.huggingface import HuggingFace
from lockdec.errors import ConfigError, DataError
from tests.encoders import checkpoints
from tests.encoders.kinds import audio, drawings


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.bert(tmp_path_factory.mktemp("bert"))


def test_states_of_images_are_the_networks_own(vit: Path) -> None:
    model: Any = hf.ViTModel
    network, pictures = model.from_pretrained(vit), drawings()
    small = [image.resize((32, 32), Image.Resampling.BILINEAR) for image in pictures if isinstance(image, Image.Image)]
    pixels = np.stack([np.asarray(image) for image in small])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1  # mean and deviation of a half
    with torch.no_grad():
        outputs = network(pixel_values=batch, output_hidden_states=True)
    joined = HuggingFace(str(vit), layers=[1, -1]).encode(pictures)
    torch.testing.assert_close(
        joined.states, torch.cat([outputs.hidden_states[1], outputs.last_hidden_state], dim=2), atol=1e-5, rtol=1e-5
    )
    pooled = HuggingFace(str(vit), "pooled").encode(pictures).states
    torch.testing.assert_close(pooled[:, 0], outputs.pooler_output, atol=1e-5, rtol=1e-5)


def test_a_pooler_that_nobody_asked_for_is_not_part_of_the_encoder(vit: Path, tmp_path: Path) -> None:
    """A checkpoint without one gets a random one from `transformers`: the states must not depend on that draw."""
    model: Any = hf.ViTModel
    model.from_pretrained(vit, add_pooling_layer=False).save_pretrained(tmp_path)
    shutil.copy(vit / "preprocessor_config.json", tmp_path)
    first, second = HuggingFace(str(tmp_path)), HuggingFace(str(tmp_path))
    assert first.fingerprint == second.fingerprint == HuggingFace(str(vit)).fingerprint
    with pytest.raises(ConfigError, match=r"encoder\.output=pooled: this checkpoint has no pooled vector"):
        HuggingFace(str(tmp_path), "pooled")


def test_a_checkpoint_that_lacks_weights_is_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "torn")
    weights = load_file(bert / "model.safetensors")
    gone = "encoder.layer.1.output.dense.weight"
    kept = {name: value for name, value in weights.items() if name != gone}
    save_file(kept, tmp_path / "torn" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=rf"the checkpoint lacks {gone}"):
        HuggingFace(str(tmp_path / "torn"))


def test_pooled_text_is_the_mean_of_its_real_states(bert: Path) -> None:
    texts = ["abc", "a much longer text"]
    states, pooled = (HuggingFace(str(bert), output).encode(texts) for output in ("states", "pooled"))
    means = [states.states[row][states.mask[row]].mean(dim=0) for row in range(2)]
    torch.testing.assert_close(pooled.states[:, 0], torch.stack(means))


def test_a_text_that_is_too_long_is_cut(bert: Path) -> None:
    encoder = HuggingFace(str(bert))
    long, longer = encoder.encode(["ab " * 30]), encoder.encode(["ab " * 60])
    assert long.states.shape == (1, 16, 16)
    assert long.states.equal(longer.states)


def test_each_tower_of_clip_reads_its_own(tmp_path: Path) -> None:
    path = str(checkpoints.clip(tmp_path))
    images, texts = HuggingFace(path), HuggingFace(path, modality="text")
    assert (images.modality, texts.modality) == ("image", "text")
    assert images.encode(drawings()).states.shape == (8, 17, 16)
    assert texts.encode(["a dog"]).states.shape[0] == 1
    with pytest.raises(ConfigError, match=r"encoder\.modality=array: .* reads image or text"):
        HuggingFace(path, modality="array")


def test_each_tower_of_clap_reads_its_own(tmp_path: Path) -> None:
    path = checkpoints.clap(tmp_path)
    sounds, texts = HuggingFace(str(path)), HuggingFace(str(path), modality="text")
    assert (sounds.modality, sounds.rate, texts.modality, texts.rate) == ("array", 48_000, "text", None)
    assert texts.encode(["a dog"]).states.shape[0] == 1
    with pytest.raises(ConfigError, match=r"encoder\.modality=image: .* reads array or text"):
        HuggingFace(str(path), modality="image")


@pytest.mark.parametrize("fused", [False, True])
def test_states_of_clap_are_the_networks_own_and_of_the_beginning(fused: bool, tmp_path: Path) -> None:
    """The preprocessor of CLAP takes random parts of what is longer than the network reads, here a second."""
    path = checkpoints.clap(tmp_path, fused)
    samples = np.random.default_rng(0).normal(size=48_000).astype(np.float32)
    longer = np.concatenate([samples, samples[:9_000]])
    encoder = HuggingFace(str(path))
    found = encoder.encode([samples, longer]).states
    assert encoder.reads_whole(samples)
    assert not encoder.reads_whole(longer)
    given = hf.ClapFeatureExtractor.from_pretrained(path)(samples, sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        theirs = hf.ClapModel.from_pretrained(path).audio_model(**given).last_hidden_state
    torch.testing.assert_close(found[0], theirs[0].flatten(1).T)
    assert found[1].equal(found[0])


def test_the_silence_that_whisper_adds_is_no_state(tmp_path: Path) -> None:
    encoder = HuggingFace(str(checkpoints.whisper(tmp_path)))
    encoded = encoder.encode([np.zeros(16_000, np.float32) + 0.1, np.zeros(8_000, np.float32) + 0.1])
    # 10 ms a frame, two frames a state, so 50 states a second.
    assert encoded.mask.sum(dim=1).tolist() == [50, 25]


def test_audio_is_one_channel_of_samples(tmp_path: Path) -> None:
    encoder = HuggingFace(str(checkpoints.wav2vec2(tmp_path)))
    samples = np.asarray(audio()[0])
    assert encoder.encode([samples[None]]).states.equal(encoder.encode([samples]).states)
    with pytest.raises(DataError, match=r"audio of shape \(2, 400\)"):
        encoder.encode([np.zeros((2, 400), np.float32)])


def test_a_sound_that_is_too_short_for_a_state_is_named(tmp_path: Path) -> None:
    """Kernels of 10 and 4 and strides of 5 and 4: a state is made of 3 * 5 + 10 samples."""
    encoder, samples = HuggingFace(str(checkpoints.wav2vec2(tmp_path))), np.asarray(audio()[0])
    assert encoder.encode([samples[:25]]).states.shape[1] == 1
    with pytest.raises(DataError, match=r"^input 'b\.wav': the sound is too short: 24 samples, .* needs 25 or more$"):
        encode_named(encoder, {"a.wav": samples, "b.wav": samples[:24], "c.wav": samples})


@pytest.mark.parametrize("wrong", ["a text", np.zeros(3, np.float32)])
def test_inputs_of_another_kind_are_refused(wrong: Any, vit: Path) -> None:
    with pytest.raises(DataError, match="this network reads images, not"):
        HuggingFace(str(vit)).encode([wrong])


def test_pickled_weights_are_refused_by_name(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"read from safetensors, and the folder has only pytorch_model\.bin"):
        HuggingFace(str(tmp_path / "pickled"))


def test_code_of_a_checkpoint_is_never_run(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "own")
    config = json.loads((bert / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    (tmp_path / "own" / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ConfigError, match="code of its own, which is never run"):
        HuggingFace(str(tmp_path / "own"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "config.json",
            {"num_hidden_layers": 10**7},
            r"num_hidden_layers=10000000, but its weights are only \d+ tensors",
        ),
        ("config.json", {"num_hidden_layers": 0}, "num_hidden_layers=0 is not a number of layers"),
        ("config.json", {"num_labels": 10**9}, "num_labels=1000000000, and at most 100,000 are read"),
        ("config.json", {"hidden_size": 10**9}, "cannot be read"),
        ("preprocessor_config.json", {"size": {"height": 10**6, "width": 32}}, "height=1000000, and at most 8,192"),
        ("preprocessor_config.json", {"size": 10**6}, "size=1000000, and at most 8,192"),
        ("preprocessor_config.json", {"max_pixels": 10**9}, "max_pixels=1000000000, and at most 64,000,000"),
        ("preprocessor_config.json", {"image_mean": [float("nan")] * 3}, "image_mean=nan"),
        ("preprocessor_config.json", {"size": {"height": -1, "width": 8}}, "cannot encode a small image"),
        ("preprocessor_config.json", {"size": "x"}, "encoder.path="),
        ("preprocessor_config.json", {"resample": 99}, "cannot encode a small image"),
    ],
)
def test_numbers_that_would_take_the_memory_are_refused(
    file: str, changes: dict[str, Any], message: str, vit: Path, tmp_path: Path
) -> None:
    """The library builds whatever it is told to: ten million layers, or a picture of 10^12 pixels."""
    shutil.copytree(vit, tmp_path / "vit")
    path = tmp_path / "vit" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=message) as caught:
        HuggingFace(str(tmp_path / "vit"))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_lengthens_texts_is_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "bert")
    path = tmp_path / "bert" / "tokenizer.json"
    parts = json.loads(path.read_text())
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    parts["normalizer"] = {"type": "Sequence", "normalizers": [double] * 40}
    path.write_text(json.dumps(parts))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}  # which takes the file as it is
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps(kind))
    with pytest.raises(ConfigError, match=r"its tokenizer cannot be used \(its normalizer makes a text up to"):
        HuggingFace(str(tmp_path / "bert"))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "added.txt"])
def test_files_beside_the_weights_have_a_bound(file: str, vit: Path, tmp_path: Path) -> None:
    shutil.copytree(vit, tmp_path / "vit")
    with (tmp_path / "vit" / file).open("wb") as large:
        large.truncate(64_000_001)  # a hole, which takes no room
    with pytest.raises(ConfigError, match=rf"{file}: not a regular file of at most 64,000,000 bytes"):
        HuggingFace(str(tmp_path / "vit"))


@pytest.mark.parametrize(
    ("layers", "output", "message"),
    [
        ([3], "states", r"encoder\.layers=\[3\]: one or more of 0 \(the embeddings\) to 2"),
        ([], "states", r"encoder\.layers=\[\]"),
        ([2, -1], "states", r"encoder\.layers=\[2, -1\]: .* each once"),
        ([0], "pooled", r"encoder\.layers=\[0\]: output=pooled is made of the last layer"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers: list[int], output: Any, message: str, vit: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        HuggingFace(str(vit), output, layers)


def test_a_hub_id_without_a_network_is_one_plain_line(tmp_path: Path) -> None:
    code = "from lockdec.encoders.huggingface import HuggingFace; HuggingFace('someone/some-model')"
    # A port of this machine that nobody listens on stands for the network that is not there.
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **nowhere})
    last = done.stderr.strip().splitlines()[-1]
    assert "encoder.path=someone/some-model: no such folder, and the Hugging Face hub does not answer" in last
    assert "Retrying" not in done.stderr


def test_a_path_that_can_be_no_id_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.path=no/such/folder: no such folder, nor can it be the id"):
        HuggingFace("no/such/folder")
