"""The record of a plug says what it was made for, and an older one is still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lockdec
from lockdec.plugs.folder import read_plug
from lockdec.plugs.record import RECORD
from tests.conftest import TinyRun


def test_its_record_says_what_it_was_made_for(tiny: TinyRun, plug: Path) -> None:
    record = read_plug(plug)
    assert record.metrics == pytest.approx(tiny.result["metrics"])
    assert record.controls.keys() == tiny.result["controls"].keys()
    assert record.training["fewshot"]["shots"] == 16
    assert record.cross_attention is not None
    assert record.cross_attention["d_v"] == 2
    assert record.bridge is None
    assert record.decoder.dtype == "float32"
    assert "Apache-2.0" in record.licences["encoder"]
    assert str(tiny.outputs) not in (plug / RECORD).read_text() + (plug / "README.md").read_text()


@pytest.mark.parametrize("schema", [1, 2])
def test_plugs_of_earlier_schemas_are_read(schema: int, tiny: TinyRun, copied: Path) -> None:
    record = json.loads((copied / RECORD).read_text())
    del record["decoder"]["dtype"]
    if schema == 1:
        del record["bridge"]
    (copied / RECORD).write_text(json.dumps(record | {"schema": schema}))
    assert lockdec.load(copied, decoder=tiny.folder).modality == "image"
