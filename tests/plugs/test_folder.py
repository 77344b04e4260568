"""A plug captions as its run does, on its own decoder and no other; a stranger's is data."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import lockdec
from lockdec.errors import ConfigError, StoreError
from lockdec.evaluation.finished import find_run
from lockdec.plugs.folder import open_decoder, put_plug, read_plug
from lockdec.plugs.record import GIVEN, RECORD
from lockdec.plugs.writing import write_plug
from tests.conftest import TinyRun, run_tiny
from tests.faults.test_fuzz import replaced


def change(folder: Path, *places: str, to: Any) -> None:
    """Another value in the record of a plug."""
    record = node = json.loads((folder / RECORD).read_text())
    for place in places[:-1]:
        node = node[place]
    node[places[-1]] = to
    (folder / RECORD).write_text(json.dumps(record))


@pytest.fixture(scope="module")
def plugs(tiny: TinyRun, plug: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plug of cross-attention, one of another bridge, and one of both."""
    made = {"cross_attention": plug}
    for bridge in ("prefix_linear", "resampler"):
        run = run_tiny(tiny.outputs, f"plug_of_{bridge}", f"bridge={bridge}")
        made[bridge] = tmp_path_factory.mktemp("bridges") / bridge
        write_plug(find_run(run.folder), made[bridge])
    return made


@pytest.mark.parametrize("bridge", ["cross_attention", "prefix_linear", "resampler"])
def test_a_record_with_odd_values_is_refused_or_opened(
    bridge: str, plugs: dict[str, Path], tiny: TinyRun, tmp_path: Path
) -> None:
    """A value that no run writes, in any place of plug.json, raises nothing that is not documented."""
    copy = shutil.copytree(plugs[bridge], tmp_path / "plug")
    model, tokenizer = open_decoder(tiny.folder, read_plug(copy).decoder)

    @settings(max_examples=40, deadline=None, database=None)
    @given(content=replaced(json.loads((copy / RECORD).read_text())))
    def opened(content: bytes) -> None:
        (copy / RECORD).write_bytes(content)
        for name in list(model.plugs):
            model.detach(name)
        with suppress(StoreError, ConfigError):
            put_plug(copy, read_plug(copy), model, tokenizer, "the decoder")

    opened()


def test_a_plug_captions_as_its_run_does(tiny: TinyRun, plug: Path, picture: Path) -> None:
    [whole], [plugged] = (
        lockdec.load(tiny.folder).caption(picture),
        lockdec.load(plug, decoder=tiny.folder).caption(picture),
    )
    assert (plugged.text, plugged.log_prob) == (whole.text, whole.log_prob)


@pytest.mark.parametrize(
    ("places", "value", "said"),
    [
        (("decoder", "fingerprint"), "0" * 64, r"made for the decoder 000000000000, and that of"),
        (("decoder", "dtype"), "float8", r"decoder\.dtype=float8 is not one of: float32, bfloat16"),
        (("decoder", "tokenizer"), "0" * 64, r"made for the tokenizer 000000000000, and that of"),
        (("encoder", "config", "grid"), 4, r"made for the encoder EfficientNetLite0 .*, and this one is"),
        (("encoder", "fingerprint"), "0" * 64, r"made for the encoder EfficientNetLite0 000000000000"),
        (("schema",), 4, r"plug\.json: schema 4, and this lockdec \(.*\) reads 3"),
        (("cross_attention",), None, "it has neither cross-attention nor another bridge"),
        (("bridge",), {"kind": "lora"}, "names no bridge.safetensors"),
        (("cross_attention", "heads"), 4096, "not the weights of a LockingDecoder"),
        (("cross_attention", "encoder_dim"), 10**12, "not the weights of a LockingDecoder"),
        (("decoding", "beams"), 10**6, "at most"),
        (("prompt",), {"text": "a", "tokens": [10**6], "blank": True}, "is no token of the tokenizer"),
        (("encoder", "config", "_target_"), "os.system", "is not trusted"),
        (("encoder", "config", "_target_"), "lockdec.plugs.folder.read_plug", "is not trusted"),
        (
            ("encoder", "config"),
            {"_target_": "lockdec.encoders.huggingface.HuggingFace", "path": "/etc"},
            "names no files",
        ),
        (("encoder", "config"), {"_target_": "lockdec.encoders.features.Features", "path": "../x"}, "names no files"),
        (
            ("encoder", "config"),
            {"_target_": "lockdec.encoders.huggingface.HuggingFace", "path": "somebody/model"},
            "--allow-download somebody/model",
        ),
        (
            ("encoder", "config"),
            {"_target_": "lockdec.encoders.features.Features", "path": f"{GIVEN}x"},
            "with --encoder",
        ),
        (("files", "../secret"), {"bytes": 1, "sha256": "0"}, r"'\.\./secret' cannot be a file of a plug"),
        (("files", "/etc/hostname"), {"bytes": 1, "sha256": "0"}, "cannot be a file of a plug"),
        (("files", "big"), {"bytes": 10**12, "sha256": "0"}, "larger than"),
        (("files",), {}, "names no cross_attention.safetensors"),
        (("more",), 1, "unknown key more"),
    ],
)
def test_what_does_not_belong_is_refused_by_name(
    places: tuple[str, ...], value: Any, said: str, tiny: TinyRun, copied: Path
) -> None:
    change(copied, *places, to=value)
    with pytest.raises(lockdec.LockdecError, match=said):
        lockdec.load(copied, decoder=tiny.folder)


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


SPOILED: dict[str, Callable[[Path], object]] = {
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    "gone": Path.unlink,
    "pickled": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "link": linked,
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("name", ["normalisation.safetensors", "cross_attention.safetensors", RECORD])
def test_a_spoiled_file_is_named(kind: str, name: str, tiny: TinyRun, copied: Path) -> None:
    SPOILED[kind](copied / name)
    with pytest.raises(
        lockdec.LockdecError, match=name if (kind, name) != ("gone", RECORD) else r"no result\.json|plug"
    ):
        lockdec.load(copied, decoder=tiny.folder)


def test_two_plugs_on_one_decoder_caption_as_each_does_alone(
    tiny: TinyRun, plug: Path, picture: Path, tmp_path: Path
) -> None:
    other = run_tiny(tiny.outputs, "other", "finetune.steps=3", "cross_attention.d_v=3")
    write_plug(find_run(other.folder), tmp_path / "second")
    first = lockdec.load(plug, decoder=tiny.folder)
    second = first.with_plug(tmp_path / "second")
    assert second._parts.model is first._parts.model
    for _ in range(2):
        for shared, alone in ((first, tiny), (second, other)):
            [one], [two] = shared.caption(picture), lockdec.load(alone.folder).caption(picture)
            assert (one.text, one.log_prob) == (two.text, two.log_prob)


def test_a_plug_that_does_not_fit_leaves_the_captioner_as_it_was(tiny: TinyRun, copied: Path, picture: Path) -> None:
    captioner = lockdec.load(tiny.folder)
    [before] = captioner.caption(picture)
    change(copied, "decoder", "fingerprint", to="0" * 64)
    with pytest.raises(lockdec.StoreError, match="the plug was made for the decoder 000000000000"):
        captioner.with_plug(copied)
    [after] = captioner.caption(picture)
    assert (after.text, after.log_prob) == (before.text, before.log_prob)


def test_a_plug_of_another_precision_than_the_open_decoder_is_refused(tiny: TinyRun, copied: Path) -> None:
    change(copied, "decoder", "dtype", to="bfloat16")
    with pytest.raises(
        StoreError, match="trained over a decoder in bfloat16, and that of this captioner is in float32"
    ):
        lockdec.load(tiny.folder).with_plug(copied)


def test_the_encoders_files_are_those_that_the_record_names(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "encoder.json").write_text("{}")
    (copied / "encoder").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match=r"encoder: a symbolic link, which is not followed"):
        read_plug(copied)
    (copied / "encoder").unlink()
    shutil.copytree(tmp_path / "outside", copied / "encoder")
    with pytest.raises(StoreError, match=r"encoder/encoder\.json: plug\.json does not name it"):
        read_plug(copied)
    (copied / "encoder" / "encoder.json").rename(copied / "encoder" / ".DS_Store")
    assert read_plug(copied).files


def test_a_plug_in_the_place_of_a_decoder_is_named(plug: Path) -> None:
    with pytest.raises(StoreError, match="a plug, which has no decoder of its own; name the run"):
        lockdec.load(plug, decoder=plug)


def test_one_name_is_not_taken_for_a_list_of_its_letters(tiny: TinyRun, copied: Path) -> None:
    """The letters of what is trusted or may be downloaded would allow what nobody has named."""
    with pytest.raises(StoreError, match=r"plugs=\['here'\]: name two plugs or more"):
        lockdec.load(plugs="here", decoder=tiny.folder)
    change(copied, "encoder", "config", "_target_", to="os.system")
    for opened in (
        partial(lockdec.load, copied, decoder=tiny.folder),
        partial(lockdec.load(tiny.folder).with_plug, copied),
    ):
        with pytest.raises(ConfigError, match=r"not trusted \(allowed: lockdec\., others\.;"):
            opened(trust="others.")
    named = {"_target_": "lockdec.encoders.huggingface.HuggingFace", "path": "somebody/model"}
    change(copied, "encoder", "config", to=named)
    with pytest.raises(ConfigError, match="--allow-download somebody/model"):
        lockdec.load(copied, decoder=tiny.folder, allow_download="somebody/model-large")
