"""Files from a stranger are data: a pickle in the place of any of them is refused by name and never run."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lockdec.data.drawings import read_svg
from lockdec.data.folder import Folder
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.errors import LockdecError, StoreError
from lockdec.report.results import read as read_results
from lockdec.store import CHECKPOINT
from lockdec.store.reading import read_config, read_dataclass, read_json
from lockdec.store.tensors import load_tensors
from lockdec.training.checkpoints import CheckpointIO
from lockdec.transformer.configuration import DecoderConfig
from tests.faults.warm import Command
from tests.training.test_fit import Line, train


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def pickles(mark: Path) -> list[bytes]:
    """A payload as pickle writes it, as torch.save does, and as numpy does."""
    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": Payload(mark)}, saved)
    np.save(array, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    return [pickle.dumps(Payload(mark)), saved.getvalue(), array.getvalue()]


def test_the_payload_works(mark: Path) -> None:
    pickle.loads(pickles(mark)[0])
    assert mark.exists()


READERS: dict[str, Callable[[Path], object]] = {
    "artifact.json": lambda path: read_json(path),
    "config.yaml": read_config,
    "decoder.json": lambda path: read_dataclass(path, DecoderConfig),
    "decoder.safetensors": load_tensors,
    "normalisation.safetensors": Normalisation.load,
    "tokenizer.json": Tokenizer.load,
    "states.npy": lambda path: EncodedSet.open(path.parent),
    "lengths.npy": lambda path: EncodedSet.open(path.parent),
    "ids.json": lambda path: EncodedSet.open(path.parent),
    "captions.csv": lambda path: Folder(str(path.parent)),
    "captions.jsonl": lambda path: Folder(str(path.parent)),
    "drawing.svg": read_svg,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_the_place_of_any_file_is_refused_by_name(
    name: str, mark: Path, tmp_path: Path, undisturbed: Command
) -> None:
    """The files beside it are good ones."""
    for number, content in enumerate(pickles(mark)):
        folder = tmp_path / str(number)
        shutil.copytree(next(undisturbed.outputs.glob("stages/attach/*/")), folder)
        (folder / name).write_bytes(content)
        with pytest.raises(LockdecError) as error:
            READERS[name](folder / name)
        assert str(folder) in str(error.value)
    assert not mark.exists()


def test_a_pickle_in_the_place_of_result_json_or_what_lies_beside_it_is_skipped_by_name(
    mark: Path, tmp_path: Path, undisturbed: Command
) -> None:
    for number, content in enumerate(pickles(mark)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "result.json").write_bytes(content)
    found = read_results([tmp_path])
    assert [entry.path.parent.name for entry in found.skipped] == ["0", "1", "2"]
    assert not mark.exists()


def test_a_pickle_in_the_place_of_a_checkpoint_is_set_aside(mark: Path, tmp_path: Path) -> None:
    """Also one whose seal holds."""
    folder = tmp_path / "stage" / "key"
    folder.mkdir(parents=True)
    sealed = {"global_step": 1, "more": Payload(mark)}
    CheckpointIO("stage/key").save_checkpoint(sealed, folder / CHECKPOINT)
    for content in ((folder / CHECKPOINT).read_bytes(), *pickles(mark)):
        (folder / CHECKPOINT).write_bytes(content)
        with pytest.warns(UserWarning, match=r"last\.ckpt: .*; set aside as"):
            train(folder, Line())
    assert not mark.exists()


def test_a_tokenizer_with_a_command_in_it_is_only_text(tmp_path: Path, undisturbed: Command, mark: Path) -> None:
    good = json.loads(next(undisturbed.outputs.glob("stages/pretrain/*/tokenizer.json")).read_text())
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model"):
        evil = good | {part: {"type": "os.system", "command": f"touch {mark}", "__reduce__": ["os.system"]}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(evil))
        with pytest.raises(StoreError, match="not the JSON file of a saved tokenizer"):
            Tokenizer.load(tmp_path / "tokenizer.json")
    assert not mark.exists()


def test_nothing_in_the_package_unpickles() -> None:
    """Whatever reads with pickle is either not used, or told to read plain data alone, or reads what it has written."""
    package = Path(__file__).parents[2] / "lockdec"
    wanted = re.compile(
        r"import pickle|pickle\.loads?|(import|from) (dill|joblib|shelve|marshal)|torch\.load|np\.load\("
        r"|yaml\.\w*load\(|(?<!\.)\beval\(|\bexec\(|shell=True|os\.system"
    )
    found = [line for path in package.rglob("*.py") for line in path.read_text().splitlines() if wanted.search(line)]
    allowed = ["weights_only=True", "allow_pickle=False", ", SAFE_LOADER)"]
    allowed += ["import pickle  # for copies alone", "pickle.loads(pickle.dumps(node))"]
    assert [line for line in found if not any(word in line for word in allowed)] == []
