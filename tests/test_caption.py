"""Runs on a user's data of every kind, and captions of new inputs by what those runs left."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
from PIL import Image

from lockdec.caption import NewInput, main, named_inputs
from lockdec.errors import DataError, LockdecError, StoreError
from lockdec.evaluation.finished import find_run
from lockdec.export import export
from lockdec.store.reading import MULTIRUN
from lockdec.store.writing import write_json
from tests.conftest import TinyRun, run_tiny
from tests.data.user_files import write_arrays, write_csv, write_lines, write_pictures
from tests.faults.causes import unprivileged
from tests.faults.warm import Warm

QUICK = ("data.limit=null", "~text.sources.wikipedia", "fewshot.shots=4", "pretrain.steps=2", "finetune.steps=2")
MLM = ("encoder=mlm", "encoder.layers=[0,2]", "pretrain_encoder.steps=2")
ARRAYS = ("~encoder", "encoder={_target_: tests.encoders.array_encoder.Scaled, dim: 6}")
TEXTS = [(f"text {number} of {number % 5}", f"caption {number}") for number in range(24)]


def quick(folder: Path, name: str, *overrides: str) -> TinyRun:
    run = run_tiny(folder / "outputs", name, *QUICK, *overrides)
    assert run.result["status"] == "ok"
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caption")


@pytest.fixture(scope="module")
def pictures(place: Path) -> TinyRun:
    """A folder of drawings, one of which is damaged and left out."""
    rows = write_pictures(place / "pictures")
    (place / "pictures" / "damaged.png").write_bytes(b"no picture")
    write_csv(place / "pictures", [*rows, ("damaged.png", "a damaged one")])
    return quick(place, "pictures", "data=folder", f"data.path={place / 'pictures'}", "data.on_bad=skip")


@pytest.fixture(scope="module")
def texts(place: Path) -> TinyRun:
    write_csv(place / "texts", TEXTS)
    return quick(place, "texts", "data=folder", f"data.path={place / 'texts'}", *MLM)


@pytest.fixture(scope="module")
def arrays(place: Path) -> TinyRun:
    write_csv(place / "arrays", write_arrays(place / "arrays"))
    return quick(place, "arrays", "data=folder", f"data.path={place / 'arrays'}", *ARRAYS)


def said(run: TinyRun) -> dict[str, str]:
    """What the run's own evaluation said of each held-out input, by id."""
    lines = (run.folder / "captions.jsonl").read_text().splitlines()
    return {row["id"]: row["caption"] for row in map(json.loads, lines)}


def captions(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    capsys.readouterr()
    main([*arguments, "--jsonl"])
    return {row["input"]: row["caption"] for row in map(json.loads, capsys.readouterr().out.splitlines())}


def test_what_was_left_out_is_listed_and_counted(pictures: TinyRun) -> None:
    assert pictures.result["data"]["skipped"] == 1
    (line,) = (pictures.folder / "skipped.txt").read_text().splitlines()
    assert "captions.csv line 26: damaged.png: not a picture of a kind that is read" in line
    assert pictures.result["data"]["train"] + pictures.result["data"]["val"] + pictures.result["data"]["test"] == 24
    assert len(list((pictures.folder / "drawings").glob("*.png"))) == pictures.result["data"]["test"]


def test_where_the_cache_lies_changes_no_key(place: Path, pictures: TinyRun) -> None:
    path = f"data.path={place / 'pictures'}"
    again = quick(place, "again", "data=folder", path, "data.on_bad=skip", f"data.cache={place / 'elsewhere'}")
    assert all(entry["reused"] for entry in again.result["stages"].values())


def test_pictures_are_captioned_as_the_run_did(
    place: Path, pictures: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {str(place / "pictures" / name.replace("%2F", "/")): caption for name, caption in said(pictures).items()}
    assert captions(capsys, str(pictures.folder), *wanted, "--batch-size", "2") == wanted
    folder = captions(capsys, str(pictures.folder), str(place / "pictures" / "pictures"))
    assert len(folder) == 24
    assert wanted.items() <= folder.items()


def test_texts_are_captioned_as_the_run_did(texts: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (texts.folder / "captions.jsonl").read_text().splitlines()]
    wanted = {row["input"]: row["caption"] for row in rows}
    assert captions(capsys, str(texts.folder), *wanted) == wanted
    export(texts.folder, tmp_path / "out")  # with the encoder that the run pretrained
    assert captions(capsys, str(tmp_path / "out"), *wanted) == wanted
    (tmp_path / "new.txt").write_text("\n".join(wanted) + "\n\n")
    assert captions(capsys, str(texts.folder), f"@{tmp_path / 'new.txt'}") == wanted


def test_arrays_are_captioned_as_the_run_did_by_a_class_that_is_trusted(
    place: Path, arrays: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {str(place / "arrays" / name): caption for name, caption in said(arrays).items()}
    with pytest.raises(SystemExit, match=r"^lockdec: encoder\._target_=tests\.encoders.* is not trusted"):
        main([str(arrays.folder), *wanted])
    assert captions(capsys, str(arrays.folder), *wanted, "--trust", "tests.encoders.") == wanted


def test_tunes_go_from_training_to_captions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = quick(place, "tunes", "data=tunes", "data.limit=64", *MLM)
    assert run.result["controls"].keys() >= {"nearest_phrase", "locked"}
    assert captions(capsys, str(run.folder), "d2 fd a,dfa | gfed c4").keys() == {"d2 fd a,dfa | gfed c4"}


def test_karpathys_json_goes_from_training_to_captions(place: Path, pictures: TinyRun) -> None:
    rows = write_pictures(place / "karpathy")
    images = [
        {"filename": name, "split": ("train", "restval", "val", "test")[number % 4], "sentences": [{"raw": caption}]}
        for number, (name, caption) in enumerate(rows)
    ]
    (place / "karpathy" / "dataset.json").write_text(json.dumps({"images": images}))
    path = f"data.path={place / 'karpathy' / 'dataset.json'}"
    run = quick(place, "karpathy", "data=karpathy", path, f"data.images={place / 'karpathy'}")
    assert {name: run.result["data"][name] for name in ("train", "val", "test")} == {"train": 12, "val": 6, "test": 6}


def test_a_data_set_of_hugging_face_goes_from_training_to_captions(place: Path, pictures: TinyRun) -> None:
    rows = write_pictures(place / "hub")
    columns = {"image": [Image.open(place / "hub" / name) for name, _ in rows], "caption": [text for _, text in rows]}
    datasets.Dataset.from_dict(columns).save_to_disk(place / "hub" / "saved")
    run = quick(place, "hub", "data=huggingface", f"data.path={place / 'hub' / 'saved'}")
    assert run.result["data"]["train"] == 18


def test_of_a_sweep_the_best_cell_is_taken(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (status, value) in enumerate([("ok", 0.2), ("ok", 0.5), ("failed", 0.9), ("ok", 0.4)]):
        cell = pictures.outputs / "sweeps" / "s" / str(number)
        shutil.copytree(pictures.folder, cell)
        result = {**pictures.result, "status": status, "metrics": {**pictures.result["metrics"], "token_f1": value}}
        write_json(cell / "result.json", result)
    run = find_run(pictures.outputs / "sweeps" / "s")
    assert (run.folder.name, run.chosen) == ("1", "cell 1 of 4, the best by token_f1 on test (0.500)")
    picture = tmp_path / "x.png"
    Image.new("RGB", (20, 20)).save(picture)
    main([str(pictures.outputs / "sweeps" / "s"), str(picture)])
    shown = capsys.readouterr()
    assert "cell 1 of 4, the best by token_f1 on test" in shown.err
    assert shown.out.startswith(f"{picture}: ")


def test_cells_with_names_of_their_own_are_found_wherever_they_lie(pictures: TinyRun) -> None:
    """As `hydra.sweep.subdir='${cross_attention.d_k}/s_${seed}'` leaves them: also in folders with a number's name."""
    sweep = pictures.outputs / "sweeps" / "own"
    for name, value in (("1/s_0", 0.2), ("1/s_1", 0.5), ("2/s_0", 0.4)):
        shutil.copytree(pictures.folder, sweep / name)
        metrics = {**pictures.result["metrics"], "token_f1": value}
        write_json(sweep / name / "result.json", {**pictures.result, "sweep_name": "own", "metrics": metrics})
    with pytest.raises(StoreError, match=r"own: no result\.json of a finished run here"):
        find_run(sweep)
    (sweep / MULTIRUN).touch()  # Hydra writes it into the folder of every sweep
    run = find_run(sweep)
    assert (run.folder, run.chosen) == (sweep / "1/s_1", "cell 1/s_1 of 3, the best by token_f1 on test (0.500)")
    assert export(sweep, pictures.outputs / "exported").startswith(str(pictures.outputs / "exported"))


def test_what_cannot_be_read_is_named_and_the_rest_captioned(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, gone = tmp_path / "good.png", tmp_path / "bad\x1b[31m.png", tmp_path / "gone.png"
    Image.new("RGB", (20, 20)).save(good)
    bad.write_bytes(b"no picture")
    with pytest.raises(SystemExit) as ended:
        main([str(pictures.folder), str(bad), str(good), str(gone)])
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert shown.out.startswith(f"{good}: ")
    assert len(shown.err.splitlines()) == 2
    assert "not a picture of a kind" in shown.err
    assert "gone.png: cannot be read (No such file or directory)" in shown.err
    assert "\x1b" not in shown.out + shown.err


def pieces(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], list[str]]:
    """What is captioned, and what standard error says, of a command that ends with status 1."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--jsonl"])
    assert ended.value.code == 1
    shown = capsys.readouterr()
    return [json.loads(line)["input"] for line in shown.out.splitlines()], shown.err.splitlines()


def test_pictures_in_a_folder_are_found_by_ending_or_content(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.JFIF", "b", "c.jpeg", "d.xyz"):
        Image.new("RGB", (20, 20)).save(tmp_path / name, "JPEG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").touch()
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    assert list(captions(capsys, str(pictures.folder), str(tmp_path))) == [
        str(tmp_path / name) for name in ("a.JFIF", "b", "c.jpeg", "d.xyz")
    ]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    captioned, said = pieces(capsys, str(pictures.folder), str(tmp_path))
    assert len(captioned) == 4
    assert [line.split(": ")[1:] for line in said] == [
        [str(tmp_path / "bad.png"), "not a picture of a kind that is read (PNG, JPEG, WEBP, GIF, BMP, TIFF)"]
    ]


def test_a_folder_without_pictures_is_told(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty, above = tmp_path / "good.png", tmp_path / "empty", tmp_path / "above"
    for folder in (empty, above / "x" / "y"):
        folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(good)
    Image.new("RGB", (20, 20)).save(above / "x" / "y" / "deep.png")
    captioned, said = pieces(capsys, str(pictures.folder), str(empty), str(good), str(above))
    assert captioned == [str(good)]
    assert said == [
        f"lockdec: {empty}: no picture in this folder",
        f"lockdec: {above}: no picture in this folder; there are some in folders below it: add --recursive",
    ]
    assert list(captions(capsys, str(pictures.folder), str(above), "--recursive")) == [str(above / "x/y/deep.png")]


def test_a_folder_that_cannot_be_read_is_told(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with unprivileged():
        captioned, said = pieces(capsys, str(pictures.folder), str(tmp_path / "closed"))
    assert (captioned, said) == ([], [f"lockdec: {tmp_path / 'closed'}: cannot be read (Permission denied)"])


def test_texts_that_are_not_utf_8_are_told_one_by_one(
    texts: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\xef\xbb\xbfgood \xc3\xa9\r\n\nein \xff\ngood too"
    (tmp_path / "new.txt").write_bytes(content)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="latin-1"))
    for source, name in ((f"@{tmp_path / 'new.txt'}", str(tmp_path / "new.txt")), ("@-", "standard input")):
        captioned, said = pieces(capsys, str(texts.folder), source)
        assert captioned == ["good \u00e9", "good too"]
        (line,) = said
        assert line.startswith(f"lockdec: {name} line 3: 'ein \\udcff' cannot be written in UTF-8")
    captioned, said = pieces(capsys, str(texts.folder), "ein \udcff", "good", "@nowhere.txt")
    assert captioned == ["good"]
    assert "'ein \\udcff' cannot be written in UTF-8: character 5 is a single surrogate" in said[0]
    assert said[1] == "lockdec: nowhere.txt: cannot be read (No such file or directory)"
    (tmp_path / "new.txt").write_text(" \n")
    assert pieces(capsys, str(texts.folder), f"@{tmp_path / 'new.txt'}")[1][0].endswith("no line with a text in it")


def test_a_new_text_is_read_in_the_form_of_the_data(texts: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    composed, decomposed = "text caf\u00e9", "text cafe\u0301"
    found = captions(capsys, str(texts.folder), composed, decomposed)
    assert found[composed] == found[decomposed]


def test_an_input_that_its_encoder_fails_on_is_told_and_the_rest_captioned(
    place: Path, arrays: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [str(place / "arrays" / f"{number}.npy") for number in range(2)]
    np.save(tmp_path / "wide.npy", np.zeros((2, 7), np.float32))
    captioned, said = pieces(
        capsys, str(arrays.folder), good[0], str(tmp_path / "wide.npy"), good[1], "--trust", "tests.encoders."
    )
    assert captioned == good
    (line,) = said
    assert line.startswith(f"lockdec: {tmp_path / 'wide.npy'}: cannot be encoded (")


def test_of_several_runs_the_newest_is_taken_and_named(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = pictures.outputs / "runs" / "several"
    for name, status, finished in (("b", "ok", "2031"), ("a", "ok", "2032"), ("c", "failed", "2033")):
        shutil.copytree(pictures.folder, several / name)
        write_json(several / name / "result.json", {**pictures.result, "status": status, "finished": finished})
    run = find_run(several)
    assert (run.folder.name, run.chosen) == ("a", "the newest of 2 finished runs")
    Image.new("RGB", (20, 20)).save(tmp_path / "x.png")
    capsys.readouterr()
    main([str(several), str(tmp_path / "x.png")])
    assert capsys.readouterr().err == f"lockdec: the newest of 2 finished runs: {several / 'a'}\n"
    assert export(several, tmp_path / "out").endswith("INPUT...")
    with pytest.raises(StoreError, match=r"runs: no result.json .* below; name one .* that hold runs: several$"):
        find_run(shutil.copytree(several, tmp_path / "runs" / "several").parent)


def test_captions_and_names_cannot_steer_the_terminal(
    texts: TinyRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockdec.data.tokenizer.Tokenizer.decode", lambda *_: "\x1b[2Jred\x9b31m")
    main([str(texts.folder), "text\x07 with [bold]brackets[/]"])
    assert capsys.readouterr().out == "text\ufffd with [bold]brackets[/]: \ufffd[2Jred\ufffd31m\n"
    main([str(texts.folder), "text\x07", "--jsonl"])
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"input": "text\x07", "caption": "\x1b[2Jred\x9b31m"}
    assert shown.isascii()
    assert shown.strip().isprintable()


@pytest.mark.parametrize("module", ["caption", "export"])
def test_help_answers_at_once(module: str, tmp_path: Path) -> None:
    code = (
        f"import sys; from lockdec.{module} import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('IMPORTED', {'torch', 'lightning', 'PIL'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "RUN_DIR" in shown.stdout
    assert "IMPORTED set()" in shown.stdout


def test_a_reader_who_stops_reading_gets_no_traceback(texts: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("text\n" * 40)
    command = f"{sys.executable} -m lockdec.caption {texts.folder} @{tmp_path / 'many.txt'} --batch-size 1 | head -1"
    shown = subprocess.run(["bash", "-c", command], env=os.environ, capture_output=True, text=True, check=True)
    assert (len(shown.stdout.splitlines()), shown.stderr) == (1, "")


@pytest.mark.parametrize("command", ["caption", "export", "report", "store"])
def test_no_command_ends_in_a_traceback_where_its_output_cannot_be_printed(
    command: str, pictures: TinyRun, texts: TinyRun, warm: Warm, tmp_path: Path
) -> None:
    """In a terminal without the characters that are printed, and where nobody reads what is printed."""
    run = tmp_path / "caf\u00e9" / "x"
    shutil.copytree(pictures.folder if command == "report" else texts.folder, run)
    shutil.copytree(texts.outputs / "stages", run / "stages", dirs_exist_ok=True)
    again = {"caption": ["\u65e5\u672c"], "export": [str(tmp_path / "\u65e5")], "report": [], "store": []}[command]
    words = ["list", "--outputs", str(run)] if command == "store" else [str(run), *again]
    shown = warm.lockdec(command, *words, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (shown.returncode, "Traceback" in shown.stderr) == (0, False), shown.stderr
    assert "?" in shown.stdout or command == "store"
    if command == "export":
        words[1] = str(tmp_path / "other")
    unread = warm.lockdec(command, *words, cwd=tmp_path, unread=True)
    assert (unread.returncode, "Traceback" in unread.stderr) == (int(command == "caption"), False), unread.stderr
    if command == "export":
        assert find_run(tmp_path / "other")


def test_a_bad_row_ends_a_run_before_any_work(place: Path) -> None:
    write_lines(place / "bad", *({"input": f"t{number}", "caption": "x"} for number in range(9)), {"input": "t9"})
    with pytest.raises(LockdecError, match=r"captions\.jsonl line 10: either caption or captions is needed"):
        run_tiny(place / "outputs", "bad", *QUICK, "data=folder", f"data.path={place / 'bad'}", *MLM)
    result = json.loads((place / "outputs" / "runs" / "bad" / "result.json").read_text())
    assert (result["status"], result["stages"]) == ("failed", {})


def test_sounds_are_read_where_the_encoder_hears(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", np.zeros(4_000), 8_000)
    [heard] = named_inputs([str(tmp_path / "x.flac")], "array", rate=16_000)
    assert np.asarray(heard.read()).shape == (8_000,)
    [read] = named_inputs([str(tmp_path / "x.flac")], "array")
    assert read.read() == str(tmp_path / "x.flac"), "an id, of an encoder that knows ids"


def test_where_the_encoder_hears_files_and_folders_are_sounds(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.FLAC", np.zeros(4_000), 8_000, format="FLAC")
    (tmp_path / "a.wav").write_bytes(b"no sound")
    (tmp_path / "c.mid").write_bytes(b"no sound")
    (tmp_path / "notes").mkdir()
    shutil.copy(tmp_path / "b.FLAC", tmp_path / "notes" / "c.flac")

    def named(*names: Path, recursive: bool = False) -> list[NewInput]:
        return list(named_inputs(list(map(str, names)), "array", recursive, rate=16_000))

    broken, heard = named(tmp_path)
    assert [broken.name, heard.name] == [str(tmp_path / "a.wav"), str(tmp_path / "b.FLAC")]
    assert np.asarray(heard.read()).shape == (8_000,)
    assert len(named(tmp_path, recursive=True)) == 3
    for wrong in (broken, *named(tmp_path / "c.mid")):
        with pytest.raises(DataError, match=r"not a sound that can be read \(.*WAV, FLAC, Ogg and MP3 are read\)$"):
            wrong.read()
    for name, problem in (("none.mid", "cannot be read"), ("notes/none", "cannot be read")):
        [gone] = named(tmp_path / name)
        with pytest.raises(DataError, match=problem):
            gone.read()


def test_a_page_that_cannot_be_written_ends_the_command_before_any_work(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "good.png")
    for page, reason in ((tmp_path, "Is a directory"), (tmp_path / "none" / "out.html", "no such folder")):
        with pytest.raises(SystemExit, match=rf"^lockdec: {page}: cannot be written \({reason}\)"):
            main([str(pictures.folder), str(tmp_path / "good.png"), "--attention", str(page)])
    assert not capsys.readouterr().out


def test_without_a_caption_no_page_is_written(
    pictures: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.html").write_text("the page of before")
    captioned, said = pieces(capsys, str(pictures.folder), "", "gone.png", "--attention", str(tmp_path / "out.html"))
    assert captioned == []
    assert said == [
        "lockdec: '': names no input",
        "lockdec: gone.png: cannot be read (No such file or directory)",
    ]
    assert (tmp_path / "out.html").read_text() == "the page of before"
