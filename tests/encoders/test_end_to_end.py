"""Each encoder through the whole real pipeline, offline, at its smallest: one command, one contract."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lockdec.data.openmoji import OpenMoji
from tests.conftest import TinyRun, run_tiny
from tests.encoders import checkpoints
from tests.faults.warm import Warm

REPOSITORY = Path(__file__).parents[2]
QUICK = ("data.limit=64", "~text.sources.wikipedia")
TEXTS = ("data=translation", "data.source=de", "data.target=en")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the decoder is pretrained once for each data set."""
    return tmp_path_factory.mktemp("outputs")


def whole(run: TinyRun, dim: int, states: int) -> None:
    """Assert that the run captioned, from states of this width and number."""
    assert run.result["status"] == "ok"
    assert (run.result["encoder"]["dim"], run.result["encoder"]["states"]) == (dim, states)
    assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert run.result["unlock"]["max_abs_logit_delta"] == 0
    assert (run.folder / "captions.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("encoder", "dim", "states"),
    [
        ("random_efficientnet_lite0", 32 + 112 + 5, 64),
        ("vae", 32 + 5, 64),
        ("vae_vector", 256, 1),
        ("random_vae", 32 + 5, 64),
        ("vqvae", 32 + 5, 64),
    ],
)
def test_encoders_of_drawings(encoder: str, dim: int, states: int, outputs: Path) -> None:
    run = run_tiny(outputs, encoder, *QUICK, f"encoder={encoder}")
    whole(run, dim, states)
    if "efficientnet" not in encoder:
        assert Image.open(run.folder / "reconstructions.png").size[1] == 2 * 32


def test_minilm(outputs: Path) -> None:
    run = run_tiny(outputs, "minilm", *QUICK, *TEXTS, "encoder=minilm", "encoder.output=pooled")
    whole(run, 384, 1)


@pytest.mark.parametrize(
    ("family", "data", "states"),
    [("vit", (), 17), ("bert", TEXTS, 16)],
)
def test_huggingface(family: str, data: tuple[str, ...], states: int, outputs: Path, tmp_path: Path) -> None:
    path = getattr(checkpoints, family)(tmp_path / family)
    run = run_tiny(
        outputs, family, *QUICK, *data, "encoder=huggingface", f"encoder.path={path}", "encoder.layers=[0,-1]"
    )
    whole(run, 2 * 16, states)


def test_huggingface_audio_of_a_folder(outputs: Path, tmp_path: Path) -> None:
    data, rng = OpenMoji(limit=64, resolution=8), np.random.default_rng(0)
    lengths = rng.integers(300, 600, len(data))
    lengths[7] = 600
    for name, length in zip(data.ids, lengths, strict=True):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=length).astype(np.float32) * 0.1)
    table(tmp_path, data, ".npy")
    path = checkpoints.wav2vec2(tmp_path / "wav2vec2")
    folder = ("data=folder", f"data.path={tmp_path}")
    run = run_tiny(outputs, "wav2vec2", *QUICK, *folder, "encoder=huggingface", f"encoder.path={path}")
    # A convolution of width 10 and step 5, then one of width 4 and step 4.
    whole(run, 16, ((600 - 10) // 5 + 1 - 4) // 4 + 1)


def test_features_of_another_tool(outputs: Path, tmp_path: Path) -> None:
    data = OpenMoji(limit=64, resolution=8)
    pictures = data.inputs(range(len(data)))
    states = np.stack([np.asarray(picture, np.float16).reshape(16, 12) for picture in pictures])
    np.save(tmp_path / "states.npy", states)
    (tmp_path / "ids.txt").write_text("\n".join(data.ids) + "\n", encoding="utf-8")
    table(tmp_path, data)
    folder = ("data=folder", f"data.path={tmp_path}", "data.modality=array")
    whole(run_tiny(outputs, "features", *QUICK, *folder, "encoder=features", f"encoder.path={tmp_path}"), 12, 16)


def table(folder: Path, data: OpenMoji, ending: str = "") -> None:
    """Write captions.csv for inputs that are called as the drawings are."""
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "caption"])
        writer.writerows([name + ending, data.captions[row][0]] for row, name in enumerate(data.ids))


def test_a_users_own_class_outside_the_repository(outputs: Path, warm: Warm, tmp_path: Path) -> None:
    """What docs/own_encoder.md shows is written to files as it says, and run by its command."""
    text = (REPOSITORY / "docs" / "own_encoder.md").read_text(encoding="utf-8")
    files = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["thumbnail.py", "conf/encoder/thumbnail.yaml"]
    for name, content in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    code = [line for line in files[0][1].splitlines() if line.strip()]
    assert len(code) < 30
    (command,) = re.findall(r"^python -m (lockdec\.run --config-dir .*)$", text, re.MULTILINE)
    place = (f"paths.outputs={outputs}", f"hydra.run.dir={tmp_path}/run")
    done = warm.lockdec(*command.split()[1:], "debug=tiny", *place, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"name": "Thumbnail"' in (tmp_path / "run" / "result.json").read_text(encoding="utf-8")
