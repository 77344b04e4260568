"""Files from a stranger that would take all time or memory are refused, or left out of what is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockdec.data.images import open_image
from lockdec.data.sounds import open_sound
from lockdec.data.sources import load_array
from lockdec.data.tokenizer import Tokenizer
from lockdec.errors import DataError, StoreError
from tests.faults.warm import Command


def odd_tokenizers(good: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tokenizers that take all memory, or make the Rust side panic, by what is wrong with them."""
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    chain = {"type": "Sequence", "normalizers": [doubling] * 40}
    long = good["model"] | {"vocab": good["model"]["vocab"] | {"a" * 100_000: 5000}}
    return {
        "growth": good | {"normalizer": chain},
        "decoder": good | {"decoder": {"type": "Sequence", "decoders": [doubling] * 40}},
        "padding": good | {"padding": good["padding"] | {"strategy": {"Fixed": 4_000_000_000}, "pad_id": 2**31}},
        "token": good | {"model": long},
        "number": good | {"padding": good["padding"] | {"pad_id": 10**30}},
        "list": good | {"padding": [1]},
    }


def test_a_tokenizer_that_would_take_all_memory_is_refused(tmp_path: Path, undisturbed: Command) -> None:
    good = json.loads(next(undisturbed.outputs.glob("stages/pretrain/*/tokenizer.json")).read_text())
    for name, evil in odd_tokenizers(good).items():
        (tmp_path / "tokenizer.json").write_text(json.dumps(evil))
        if name == "padding":  # of no meaning here: batches are padded by lockdec
            assert Tokenizer.load(tmp_path / "tokenizer.json").encode_batch(["a"])
        else:
            with pytest.raises(StoreError, match="not the JSON file of a saved tokenizer"):
                Tokenizer.load(tmp_path / "tokenizer.json")


def test_a_tokenizer_that_panics_at_a_text_is_told_in_one_line(tmp_path: Path, undisturbed: Command) -> None:
    """Some parts of a tokenizer panic only once it is used."""
    good = json.loads(next(undisturbed.outputs.glob("stages/pretrain/*/tokenizer.json")).read_text())
    stripping = {"type": "Strip", "content": "\u0120", "start": 0, "stop": 5}
    (tmp_path / "tokenizer.json").write_text(json.dumps(good | {"decoder": stripping}))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="its tokenizer cannot be used"):
        tokenizer.decode_batch([[token] for token in range(3, 400)])


@pytest.mark.parametrize(("name", "read"), [("x.png", open_image), ("x.wav", open_sound), ("x.npy", load_array)])
def test_an_input_that_is_a_pipe_or_a_device_is_refused(name: str, read: Callable[..., object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: cannot be read \\(not a regular file\\)"):
        read(tmp_path / name, name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{name}: cannot be read \\(not a regular file\\)"):
        read(tmp_path / name, name)


UNENDING: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link": lambda path: path.symlink_to("/etc/hostname"),
    "folder": Path.mkdir,
    "large": lambda path: path.write_bytes(b"[" + b"[]," * 30_000_000 + b"[]]"),
}


@pytest.mark.parametrize("kind", UNENDING)
def test_no_file_of_a_run_holds_up_its_report_or_shows_another_file(kind: str, tmp_path: Path) -> None:
    """Each file of a run of its own; the report is written without it, and without waiting or much memory."""
    from lockdec.report.page import write_report
    from tests.report.runs import result, write_run

    secret = Path("/etc/hostname").read_text().strip()
    names = ("result.json", "config.yaml", "captions.jsonl", "attention.jsonl", "stages/x/metrics.csv")
    write_run(tmp_path / "good", result(), captions={"a": "b"})
    runs = {name: write_run(tmp_path / name.replace("/", "-"), result(), captions={"a": "b"}) for name in names}
    for name, run in runs.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).unlink(missing_ok=True)
        UNENDING[kind](run / name)
    unusable = kind != "folder"  # a folder with the name of a result is a folder like others
    written = write_report([tmp_path])
    assert [skipped.path for skipped in written.skipped] == ([runs["result.json"] / "result.json"] if unusable else [])
    assert written.runs == 5
    for name in names[1:]:
        page = write_report([runs[name]]).report.read_text()
        assert kind != "link" or f">{secret}" not in page
