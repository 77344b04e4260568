"""A model card that the hub reads, whatever a run is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub

from lockdec.plugs.card import card


def test_the_hub_reads_the_front_matter(plug: Path) -> None:
    data: Any = huggingface_hub.ModelCard.load(plug / "README.md").data
    assert (data.to_dict()["library_name"], data.to_dict()["pipeline_tag"]) == ("lockdec", "image-to-text")
    results = {result.metric_type: result.metric_value for result in data.eval_results or []}
    assert results["token_f1"] == json.loads((plug / "plug.json").read_text())["metrics"]["token_f1"]


def test_no_text_of_a_run_can_end_the_front_matter_or_add_markup(plug: Path) -> None:
    record = json.loads((plug / "plug.json").read_text())
    evil = "x\n---\nlicense: mit\n<script>![a](b)"
    record["name"] = record["decoder"]["source"] = evil
    text = card(record)
    read: Any = huggingface_hub.ModelCard(text).data
    data = read.to_dict()
    assert (data["license"], data["base_model"], data["library_name"]) == ("other", evil, "lockdec")
    assert "<script>" not in text.split("---\n\n", 1)[1]


def test_a_colleague_learns_which_module_the_encoder_needs(plug: Path) -> None:
    record = json.loads((plug / "plug.json").read_text())
    assert "--trust" not in card(record)
    record["encoder"]["config"] = {"_target_": "thumbnail.Thumbnail", "parts": [{"_target_": "lockdec.encoders.X"}]}
    text = card(record)
    assert "\nlockdec caption PLUG INPUT --decoder DECODER --trust thumbnail.\n" in text
    assert "The encoder needs the Python module `thumbnail`." in text
