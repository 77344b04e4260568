"""What the page shows of a captioner is what the library and the command line say."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lockdec
from lockdec.caption import _parser as caption_parser
from lockdec.caption import main as caption
from lockdec.errors import visible
from lockdec.evaluation.finished import find_run
from lockdec.play.player import EXAMPLES, Asked, Opening, Player, open_players
from lockdec.plugs.writing import write_plug
from tests.conftest import TinyRun


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_an_answer_is_what_the_library_says(players: Mapping[str, Player], picture: Path, talking: TinyRun) -> None:
    answer = players["image"].answer(picture.read_bytes(), "x.png", Asked(n=3))
    captioner = lockdec.load(talking.folder)
    [expected], beside = captioner.caption(picture, n=3), captioner.compare(picture)
    assert answer["text"] == visible(expected.text)
    assert answer["words"]
    assert answer["log_prob"] == pytest.approx(expected.log_prob)
    assert [word["evidence"] for word in answer["words"]] == pytest.approx([word.evidence for word in expected.words])
    assert [other["text"] for other in answer["alternatives"]] == [
        visible(other.text) for other in expected.alternatives
    ]
    assert np.array(answer["attention"]["weights"]) == pytest.approx(expected.attention.weights.numpy(), abs=1e-5)
    assert {row["name"]: row["text"] for row in answer["comparison"]} == {
        "locked": visible(beside.locked),
        "shuffled": beside.shuffled and visible(beside.shuffled.text),
        "nearest neighbour": beside.nearest_neighbour and beside.nearest_neighbour.text,
    }
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("reads", ["text", "sound", "array"])
def test_every_kind_of_input_is_answered(reads: str, players: Mapping[str, Player], tone: bytes) -> None:
    given: dict[str, bytes | str] = {"text": "zwei hunde", "sound": tone, "array": npy(np.eye(3))}
    player = players[reads]
    assert player.about()["reads"] == reads
    answer = player.answer(given[reads], "given", Asked())
    weights = np.array(answer["attention"]["weights"])
    assert weights.shape == (len(answer["words"]), answer["attention"]["states"])
    assert weights.sum(1) == pytest.approx(1, abs=0.01)
    assert [row["name"] for row in answer["comparison"]] == ["locked"], "nothing is stored that others could come from"
    shown = answer["input"]
    if reads == "text":
        assert (shown["text"], "".join(answer["attention"]["labels"][1:-1])) == ("zwei hunde", "zweihunde")
    elif reads == "sound":
        assert (shown["seconds"], shown["heard"], answer["attention"]["states"]) == (2.0, 1, 10)
        assert max(shown["peaks"]) == pytest.approx(0.5, abs=0.01)
    else:
        assert shown["shape"] == [3, 3]


@pytest.mark.parametrize("asked", [Asked(), Asked(1, "beam", 3), Asked(3, "nucleus", seed=7), Asked(2, "mbr", seed=0)])
def test_the_code_says_the_same(
    asked: Asked, players: Mapping[str, Player], picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    player = players["image"]
    answer = player.answer(picture.read_bytes(), str(picture), asked)
    names: dict[str, Any] = {}
    exec(answer["python"], names)
    assert visible(names["caption"].text) == answer["text"]
    program, command, *arguments = shlex.split(answer["command"])
    assert (program, command) == ("lockdec", "caption")
    caption(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{picture}: {answer['text']} (")
    others = [line.removeprefix("  or: ").rpartition(" (")[0] for line in lines if line.startswith("  or: ")]
    assert others == [other["text"] for other in answer["alternatives"]]


@pytest.mark.parametrize("text", ['it\'s; $(reboot) "quoted"\nand more', "-n 3", "--jsonl", "a"])
def test_a_text_reaches_the_command_line_as_it_is(text: str, players: Mapping[str, Player]) -> None:
    line = players["text"].command(text, Asked(2, "beam", 3, 4))
    assert line is not None
    options = caption_parser().parse_args(shlex.split(line)[2:])
    assert (options.run_dir, options.inputs, options.n) == ("runs/text", [text], 2)
    assert (options.strategy, options.beams, options.seed) == ("beam", 3, 4)


def test_a_text_that_the_command_line_takes_for_a_file_has_no_command(players: Mapping[str, Player]) -> None:
    assert players["text"].command("@home", Asked()) is None
    assert "'@home'" in players["text"].python("@home", Asked())


@pytest.fixture(scope="module")
def plug(talking: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugs") / "plug"
    write_plug(find_run(talking.folder), folder)
    return folder


def test_run_and_plug_share_one_decoder(talking: TinyRun, plug: Path, picture: Path) -> None:
    run, plugged = open_players([str(talking.folder), str(plug)], Opening())
    assert run.captioner._parts.model is plugged.captioner._parts.model
    own, other = (player.answer(picture.read_bytes(), str(picture), Asked(1)) for player in (run, plugged))
    assert (own["text"], own["log_prob"]) == (other["text"], other["log_prob"])
    assert [row["name"] for row in other["comparison"]] == ["locked"]
    options = caption_parser().parse_args(shlex.split(other["command"])[2:])
    assert (options.run_dir, options.decoder) == (str(plug), str(talking.folder))
    names: dict[str, Any] = {}
    exec(other["python"], names)
    assert visible(names["caption"].text) == other["text"]


def test_a_plug_alone_needs_a_decoder(plug: Path, talking: TinyRun) -> None:
    with pytest.raises(lockdec.ConfigError, match="a plug has no decoder of its own"):
        open_players([str(plug)], Opening())
    [player] = open_players([str(plug), str(plug)], Opening(decoder=str(talking.folder)))
    assert player.opening.decoder == str(talking.folder)


@pytest.mark.parametrize("option", ["decoder", "encoder"])
def test_a_run_takes_no_other_decoder_or_encoder(option: str, talking: TinyRun) -> None:
    with pytest.raises(
        lockdec.ConfigError, match=r"only a plug takes a decoder or an encoder, and there is no plug\.json"
    ):
        open_players([str(talking.folder)], Opening(**{option: "nowhere"}))


def test_what_a_run_is_and_its_examples(players: Mapping[str, Player], talking: TinyRun) -> None:
    player = players["image"]
    assert dict(player.facts)["learned from"] == "16 pairs of OpenMoji"
    rows = [json.loads(line) for line in (talking.folder / "captions.jsonl").read_text().splitlines()]
    drawn = [row for row in rows if (talking.folder / "drawings" / f"{row['id']}.png").is_file()]
    assert [example.reference for example in player.examples] == [row["references"][0] for row in drawn[:EXAMPLES]]
    for example in player.examples:
        assert isinstance(example.content, bytes)
        assert Image.open(io.BytesIO(example.content)).tobytes() == Image.open(example.name).tobytes()


def test_examples_of_a_stranger_lead_nowhere(talking: TinyRun, tmp_path: Path) -> None:
    run = shutil.copytree(talking.folder, tmp_path / "run")
    shutil.copytree(talking.outputs / "stages", run / "stages", dirs_exist_ok=True)
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    drawings = sorted((run / "drawings").iterdir())
    drawings[0].unlink()
    drawings[0].symlink_to(secret)
    drawings[1].write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    rows = [{"id": path.stem, "references": ["x"]} for path in drawings] + [{"id": "../../secret", "references": 3}, {}]
    (run / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [player] = open_players([str(run)], Opening())
    assert [Path(example.name).stem for example in player.examples] == [path.stem for path in drawings[2:]]
    (run / "captions.jsonl").write_text("no JSON\n")
    [player] = open_players([str(run)], Opening())
    assert player.examples == []


def test_damaged_states_leave_the_caption(talking: TinyRun, picture: Path, tmp_path: Path) -> None:
    run = shutil.copytree(talking.folder, tmp_path / "run")
    shutil.copytree(talking.outputs / "stages", run / "stages", dirs_exist_ok=True)
    [player] = open_players([str(run)], Opening())
    key = talking.result["stages"]["attach"]["key"]
    (run / "stages" / "attach" / key / "lengths.npy").write_bytes(b"x")
    answer = player.answer(picture.read_bytes(), "x.png", Asked(1))
    assert answer["text"]
    assert answer["comparison"] == []
    assert "lengths.npy: missing or damaged" in answer["missing"]


def test_a_result_of_a_stranger_says_little_and_breaks_nothing(talking: TinyRun, tmp_path: Path) -> None:
    run = shutil.copytree(talking.folder, tmp_path / "run")
    shutil.copytree(talking.outputs / "stages", run / "stages", dirs_exist_ok=True)
    result = json.loads((run / "result.json").read_text())
    result |= {"name": ["<b>"], "encoder": 3, "metrics": {"token_f1": "high"}, "controls": None, "fewshot": []}
    (run / "result.json").write_text(json.dumps(result))
    [player] = open_players([str(run)], Opening())
    assert player.name == "['<b>']"
    assert json.dumps(player.about())


def test_what_cannot_be_captioned_is_named(players: Mapping[str, Player]) -> None:
    for reads, name, problem in (
        ("image", "x.png", "x.png: not a picture of a kind that is read"),
        ("sound", "x.wav", "x.wav: not a sound that can be read"),
        ("array", "x.npy", "x.npy: not a .npy file of numbers"),
    ):
        with pytest.raises(lockdec.DataError, match=problem):
            players[reads].answer(b"nothing of this kind", name, Asked())


def test_an_opening_is_what_load_takes() -> None:
    import inspect

    assert set(asdict(Opening())) == set(inspect.signature(lockdec.load).parameters) - {
        "path",
        "plugs",
    }  # it opens one at a time
