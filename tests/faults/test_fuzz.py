"""Readers given files that nobody would write: each gives a value or its documented error, and never anything else.

The suite gives each of the nine readers some tens of inputs; `make fuzz` 100,000 together (LOCKDEC_FUZZ).
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockdec.data.folder import Folder
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.encoded import IDS, LENGTHS, STATES, EncodedSet
from lockdec.errors import DataError, StoreError
from lockdec.report.page import write_report
from lockdec.store import METADATA, damage
from lockdec.store.reading import read_config, read_dataclass
from lockdec.store.tensors import load_tensors
from lockdec.transformer.configuration import DecoderConfig

READERS = 9
MANY = settings(
    max_examples=-(-int(os.environ.get("LOCKDEC_FUZZ", "270")) // READERS),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
NUMBERS = [10**30, -(10**30), 10**399, 2**64, -1, 0, float("inf"), float("-inf"), float("nan"), 1e308]
TEXTS = ["\ud800", "", ".", "..", "../..", "/etc/passwd", "\0", "2020-01-01", "\u202e", "1e999", "a" * 300]
CONTAINERS = [[1], [[]], {}, {"": {}}, {"a": {"": 1}}]
ODD = st.sampled_from([*NUMBERS, *TEXTS, *CONTAINERS, True])  # values that no run writes, but that JSON can hold
SCALARS = ODD | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Rewritten for every input."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place) / ("a" * 64)


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """A good file with some bytes changed, taken out, doubled or put in."""

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        changed = content
        for place, length, put in edits:
            at = place % (len(changed) + 1)
            changed = changed[:at] + put + changed[at + length :]
        return changed

    edit = st.tuples(st.integers(0, 1 << 20), st.integers(0, 8), st.binary(max_size=6))
    return st.lists(edit, min_size=1, max_size=4).map(change)


def objects(*names: str) -> st.SearchStrategy[bytes]:
    """JSON objects, some with the names that the reader looks for."""
    known = st.dictionaries(st.sampled_from(names), JSON, max_size=len(names))
    return (known | JSON).map(lambda value: json.dumps(value).encode())


def replaced(value: object) -> st.SearchStrategy[bytes]:
    """A good JSON object with one of its values, at any depth, or one of its keys replaced by an odd one."""

    def change(choice: int, odd: object) -> bytes:
        copy = json.loads(json.dumps(value))
        places: list[tuple[Any, Any]] = []

        def walk(node: Any) -> None:
            for key, inner in list(node.items() if isinstance(node, dict) else enumerate(node)):
                places.append((node, key))
                if isinstance(inner, dict | list):
                    walk(inner)

        walk(copy)
        node, key = places[choice % len(places)]
        if choice >= len(places) and isinstance(node, dict) and isinstance(odd, str):
            node[odd] = node.pop(key)
        else:
            node[key] = odd
        return json.dumps(copy).encode()

    return st.builds(change, st.integers(0, 200), ODD)


def attempt(path: Path, content: bytes, read: Callable[[], object], *documented: type[Exception]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with suppress(*documented):
        read()


RECORD = {"schema": 1, "stage": "unlock", "key": "a" * 64, "files": {"weights": {"bytes": 1, "sha256": "0"}}} | {
    "metrics": {},
    "config": {},
    "parents": {},
    "seconds": 1.0,
}


@MANY
@given(content=replaced(RECORD) | mutated(json.dumps(RECORD).encode()) | objects(*RECORD) | st.binary(max_size=64))
def test_artifact_json(folder: Path, content: bytes) -> None:
    attempt(folder / METADATA, content, lambda: damage(folder, "unlock", "a" * 64), StoreError)


RESULT = {
    "schema": 1,
    "status": "ok",
    "seed": 0,
    "stages": {"pretrain": {"key": "a", "reused": True, "seconds": 1}},
} | {
    "metrics": {"token_f1": 0.5},
    "overrides": ["a=1"],
}


@MANY
@given(content=replaced(RESULT) | mutated(json.dumps(RESULT).encode()) | objects(*RESULT) | st.binary(max_size=64))
def test_result_json(folder: Path, content: bytes) -> None:
    attempt(folder / "result.json", content, lambda: write_report([folder]), DataError)


TABLE = b'input,caption,caption2,split\na.png,"a, b",c,train\nb.png,d,,test\n'


@MANY
@given(content=mutated(TABLE) | st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_captions_csv(folder: Path, content: bytes) -> None:
    (folder / "captions.jsonl").unlink(missing_ok=True)
    attempt(folder / "captions.csv", content, lambda: Folder(str(folder), modality="text"), DataError)


LINES = b'{"input": "a", "caption": "b"}\n{"input": "c", "captions": ["d", "e"], "split": "test"}\n'


@MANY
@given(content=mutated(LINES) | objects("input", "caption", "captions", "split", "id") | st.binary(max_size=64))
def test_captions_jsonl(folder: Path, content: bytes) -> None:
    (folder / "captions.csv").unlink(missing_ok=True)
    attempt(folder / "captions.jsonl", content, lambda: Folder(str(folder), modality="text"), DataError)


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * 16


HEADER = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F8_E4M3", "BOOL", "X"]),
        "shape": st.lists(st.integers(-1, 1 << 62)),
    },
    optional={"data_offsets": st.lists(st.integers(-1, 1 << 62), max_size=3)},
)


@MANY
@given(
    content=mutated(safetensors(HEADER))
    | mutated(HEADER).map(safetensors)
    | st.dictionaries(st.text(max_size=4), ENTRY | JSON, max_size=3).map(lambda v: safetensors(json.dumps(v).encode()))
    | st.integers(0, (1 << 64) - 1).map(lambda length: safetensors(HEADER, length))
)
def test_safetensors(folder: Path, content: bytes) -> None:
    attempt(folder / "weights.safetensors", content, lambda: load_tensors(folder / "weights.safetensors"), StoreError)


PLAIN = {"seed": 0, "stages": {"attach": {"encoder": {"_target_": "lockdec.encoders.mlm.X", "layers": [1, 2]}}}}
CONFIG = b"seed: 0\nstages:\n  attach:\n    encoder: {_target_: lockdec.encoders.mlm.X, layers: [1, 2]}\nname: 'x'\n"


@MANY
@given(
    content=replaced(PLAIN)
    | mutated(CONFIG)
    | objects("stages", "seed", "_target_")
    | st.text(max_size=64).map(str.encode)
)
def test_config_yaml(folder: Path, content: bytes) -> None:
    attempt(folder / "config.yaml", content, lambda: read_config(folder / "config.yaml"), StoreError)


SIZES = {"vocab_size": 300, "max_len": 8, "d_model": 8, "layers": 1, "heads": 2, "d_ff": 8, "norm": "pre"}


@MANY
@given(content=replaced(SIZES) | mutated(json.dumps(SIZES).encode()) | objects(*SIZES) | st.binary(max_size=64))
def test_decoder_json(folder: Path, content: bytes) -> None:
    attempt(
        folder / "decoder.json", content, lambda: read_dataclass(folder / "decoder.json", DecoderConfig), StoreError
    )


@MANY
@given(content=objects("version", "model", "added_tokens", "padding", "post_processor") | st.binary(max_size=64))
def test_tokenizer_json(folder: Path, content: bytes) -> None:
    attempt(folder / "tokenizer.json", content, lambda: Tokenizer.load(folder / "tokenizer.json"), StoreError)


NPY = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1, 2), }" + b" " * 58 + b"\n\0\0\0\0"
)


@MANY
@given(content=mutated(NPY) | st.binary(max_size=64), name=st.sampled_from([STATES, LENGTHS, IDS]))
def test_encoded_states(folder: Path, content: bytes, name: str) -> None:
    folder.mkdir(exist_ok=True)
    for other in (STATES, LENGTHS):
        (folder / other).write_bytes(NPY)
    (folder / IDS).write_text('["a"]')
    attempt(folder / name, content, lambda: EncodedSet.open(folder), StoreError)
