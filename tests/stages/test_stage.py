"""What every stage declares, and that no change of its code goes unreviewed."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.pipeline.keys import without
from lockdec.stages.finetune import Finetune
from lockdec.stages.import_decoder import ImportDecoder
from lockdec.stages.pretrain import Pretrain
from lockdec.stages.stage import DecoderStage, Stage
from lockdec.stages.unlock import Unlock
from tests.data.fresh_process import output
from tests.stages.declared import STAGES
from tests.stages.versions import RECORD, code_hash, recorded, unreviewed


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_code_that_decides_a_result_is_reviewed_with_its_version(stage: type[Stage]) -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert not (problem := unreviewed(stage, record)), problem


def test_what_stages_declare_is_read_without_lightning() -> None:
    """So a dry run and a finished sweep, as well as a caption, do not wait for it."""
    modules = ["lockdec.sweeps.plan", "lockdec.caption", "lockdec.evaluation.captioner"]
    modules += sorted({stage.__module__ for stage in STAGES})
    assert output(f"import sys, {', '.join(modules)}; print('lightning' in sys.modules)", 1) == "False"


def test_a_change_of_code_asks_for_a_version_or_a_review() -> None:
    record: dict[str, Any] = {"Finetune": recorded(Finetune)}
    assert unreviewed(Finetune, record) is None
    record["Finetune"]["code"]["lockdec.modules.captioning"] = "as it was"
    said = str(unreviewed(Finetune, record))
    assert "lockdec.modules.captioning changed" in said
    assert "raise Finetune.version in lockdec.stages.finetune" in said
    assert "python -m tests.stages.versions" in said
    record["Finetune"]["version"] = Finetune.version - 1
    assert "not in the record yet" in str(unreviewed(Finetune, record))


def test_only_what_python_does_counts_as_code() -> None:
    code = 'def f(x):\n    """Doc."""\n    return x + 1\n'
    same = "def f( x ):  # a comment\n    return (x\n            + 1)\n"
    assert code_hash(code) == code_hash(same)
    assert code_hash(code) != code_hash(code.replace("+ 1", "+ 2"))
    assert code_hash(code) != code_hash(code.replace("return x", "return 'Doc.'"))


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_keys_that_are_no_part_of_an_artifact_key_are_keys_of_the_stage(stage: type[Stage]) -> None:
    """A pattern that matches nothing would be a key that was renamed: it would come back into every artifact key."""
    known = {field.name for field in fields(stage)}
    for pattern in (*stage.neutral, *stage.fingerprinted):
        if pattern not in (*Stage.neutral, *Stage.fingerprinted):  # which only stages with data have
            assert re.split(r"[=. ]", pattern)[0] in known, pattern


@given(st.text("ab.", min_size=1), st.text("ab.", min_size=1))
def test_what_is_not_named_stays_in_the_key(name: str, neutral: str) -> None:
    assert (without({name: 1}, [neutral]) == {}) == (name == neutral)


def test_parents_are_the_stages_before_it_that_are_of_a_kind_it_reads() -> None:
    class Next(Finetune):
        name: ClassVar[str] = "next"
        reads: ClassVar[tuple[type[Stage], ...]] = (Finetune, DecoderStage)

    def unbuilt(kind: type[Stage]) -> Stage:
        return object.__new__(kind)

    before: dict[str, Stage] = {"pretrain": unbuilt(ImportDecoder), "unlock": unbuilt(Unlock)}
    assert unbuilt(Finetune).parents(before) == ("pretrain", "attach", "unlock"), "one that is missing is named, too"
    before |= {"adapt": unbuilt(Pretrain), "finetune": unbuilt(Finetune), "next": unbuilt(Next)}
    assert unbuilt(Next).parents(before) == ("finetune", "next", "pretrain", "adapt")
    assert {"pretrain", "finetune", "next"} <= Stage.names()
    assert Finetune.names() == {"finetune", "next"}
