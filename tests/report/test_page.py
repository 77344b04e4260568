"""report.html, results.csv and results.json as files: what is in them, and that nothing in them can act."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from statistics import stdev

import pytest

from lockdec.errors import DataError, StoreError
from lockdec.evaluation.result import EARLIER
from lockdec.report.__main__ import main
from lockdec.report.page import HERE, write_report
from lockdec.report.study import ALL_METRICS, METRIC_LABELS
from lockdec.store.reading import MADE_BEFORE, RESULT
from tests.report.runs import DRAWINGS, METRICS, captioned_run, result, write_run, write_sweep

NASTY = '"><img src=x onerror="hacked=1"><script>hacked=1</script></script ><!--<script>\u2028&lt;{{7*7}}'


class Tags(HTMLParser):
    """The elements of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


def png(width: int, height: int, seed: int = 0) -> bytes:
    """A picture of noise, which does not compress."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * width) for _ in range(height))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_sweep_gets_a_page_and_tables_that_agree_with_its_files(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "how_low")
    written = write_report([folder])
    assert written.report == folder / "report.html"
    assert written.runs == 24
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["folder"] for row in rows] == [f"how_low/{number}" for number in range(24)]
    data = json.loads((folder / "results.json").read_text())
    assert len(data["settings"]) == 8
    for setting in data["settings"]:
        cells = [float(row["metrics.token_f1"]) for row in rows if row["folder"] in setting["runs"]]
        estimate = setting["estimates"]["token_f1"]["score"]
        assert estimate["n"] == len(cells) == 3
        assert estimate["mean"] == pytest.approx(sum(cells) / 3)
        half = 4.302653 * stdev(cells) / 3**0.5  # t of 2 degrees of freedom
        assert estimate["low"] == pytest.approx(sum(cells) / 3 - half)
    page = written.report.read_text()
    for section in (
        "Quality against dimension",
        "Quality against number of pairs",
        "trained parameters",
        "All cells",
    ):
        assert section in page


def test_a_secret_of_a_later_moment_is_in_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template is compiled once; what is secret is asked for each page."""
    folder = write_run(tmp_path / "run", result() | {"command": "greet with plain-words"}, extras=False)
    assert "plain-words" in write_report([folder]).report.read_text()
    monkeypatch.setenv("SERVICE_TOKEN", "plain-words")
    page = write_report([folder]).report.read_text()
    assert "greet with" in page
    assert "plain-words" not in page


def test_a_run_gets_a_page_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "2026-01-01", result(), picture=png(8, 8))
    before = {path.name for path in folder.iterdir()}
    write_report([folder])
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    tags = Tags((folder / "report.html").read_text())
    text = " ".join(tags.text.split())
    pictures = [attributes for tag, attributes in tags.found if tag == "img"]
    assert len(pictures) == len(DRAWINGS)
    assert all((picture["src"] or "").startswith("data:image/png;base64,") for picture in pictures)
    for said in (
        "woman firefighter light skin tone",
        "flag france",
        "red apple",
        "man firefighter light skin tone",
    ):
        assert said in text
    assert "Learning curve of finetune" in text
    assert "565,248 trained parameters" in text
    assert [attributes.get("aria-label") for tag, attributes in tags.found if tag == "svg"][:2] == [
        "attention at “woman”",
        "attention at “firefighter”",
    ]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_did_not_end_well_still_has_a_page(tmp_path: Path, status: str) -> None:
    content = {
        "schema": 1,
        "status": status,
        "error": "the <disk> is full",
        "name": "x",
        "stages": {},
        "overrides": [],
    }
    folder = write_run(tmp_path / "run", content, extras=False)
    page = write_report([folder]).report.read_text()
    assert "the &lt;disk&gt; is full" in page
    assert len(page) < 60_000  # no figure, so no Plotly


def test_a_sweep_of_failures_still_reports(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / "s" / str(number), result(status="failed", error="no memory"), extras=False)
    (tmp_path / "s" / "2").mkdir()
    (tmp_path / "s" / "2" / "result.json").write_text("{")
    written = write_report([tmp_path / "s"])
    assert [skipped.path.parent.name for skipped in written.skipped] == ["2"]
    text = Tags(written.report.read_text()).text
    assert "No cell has finished with metrics yet" in text
    assert text.count("no memory") == 2
    assert "not JSON" in text


def test_cells_that_were_stopped_early_are_counted_as_such(tmp_path: Path) -> None:
    for number, status in enumerate(("ok", "pruned", "pruned", "failed", "interrupted")):
        write_run(tmp_path / "s" / str(number), result((2, 2, 2), 16, number, status=status), extras=False)
    text = " ".join(Tags(write_report([tmp_path / "s"]).report.read_text()).text.split())
    assert "5 cells 1 ok 1 failed 1 interrupted 2 pruned" in text


def test_ids_are_shown_as_the_files_were_called(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", captions={"animals%2Famphibians%3A1": "frog"})
    assert '<p class="id">animals/amphibians:1</p>' in write_report([folder]).report.read_text()


def test_attributes_have_a_table_where_they_were_counted(tmp_path: Path) -> None:
    counted = {"caption": {"tone": 0.75, "hair": 0.5}, "prior": {"tone": 0.25, "hair": 0.125}}
    page = write_report([write_run(tmp_path / "run", result() | {"attributes": counted}, extras=False)]).report
    table = page.read_text().split("Attributes named correctly</h3>")[1].split("</table>")[0]
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", table)]
    assert cells[:3] == ["Attribute", "captioner", "prior"]
    assert cells[6:9] == ["tone", "0.750", "0.250"]
    assert cells[12:15] == ["hair", "0.500", "0.125"]
    without = write_report([write_run(tmp_path / "without", extras=False)]).report
    assert "Attributes named correctly" not in without.read_text()


def test_what_is_shown_to_differ_over_the_inputs_is_coloured(tmp_path: Path) -> None:
    rows = [
        {"id": f"{number}", "references": ["a red hat"], "caption": "a red hat", "prior": "", "locked": "a red hat"}
        for number in range(40)
    ]
    page = write_report([captioned_run(tmp_path / "run", rows)]).report.read_text()
    row = re.search(r"<tr><th scope=\"row\">token F1</th>.*?</tr>", page, re.DOTALL)
    assert row is not None
    cells = re.findall(r"<td.*?</td>", row[0])
    assert [re.findall(r'class="(gap[ a-z]*)"', cell) for cell in cells] == [[], ["gap good"], ["gap"]]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", shots=(16,))
    names = ("report.html", "results.csv", "results.json")
    write_report([folder])
    first = [(folder / name).read_bytes() for name in names]
    write_report([folder])
    assert [(folder / name).read_bytes() for name in names] == first
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_text_from_files_is_text_in_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "s<b>x"
    nasty = result(overrides=(f"stages.finetune.note={NASTY}",), name=NASTY, command=NASTY, error=NASTY)
    nasty["encoder"]["name"] = nasty["data"]["name"] = nasty["versions"]["torch"] = NASTY
    write_run(folder / "0", nasty, captions={NASTY.replace("/", ""): NASTY})
    write_run(folder / "1", result(dims=(4, 4, 4)), captions={"a": NASTY})
    write_run(folder / "2", result(dims=(2, 2, 2), status="failed", error=NASTY), extras=False)
    plain = write_run(tmp_path / "plain", result())
    for dirs in ([folder], [folder / "0"]):
        page = write_report(dirs).report.read_text()
        tags = Tags(page)
        assert "hacked" not in {name for _, attributes in tags.found for name in attributes}
        assert not [tag for tag, attributes in tags.found if "onerror" in attributes]
        kinds = [attributes.get("type") for tag, attributes in tags.found if tag == "script"]
        usual = [attributes.get("type") for tag, attributes in tags_of(plain) if tag == "script"]
        assert kinds == usual
        assert NASTY.replace("\u2028", "") in tags.text.replace("\u2028", "")


def tags_of(folder: Path) -> list[tuple[str, dict[str, str | None]]]:
    return Tags(write_report([folder]).report.read_text()).found


def test_a_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", picture=png(8, 8))
    for tag, attributes in tags_of(folder):
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
    policy = next(a["content"] for tag, a in tags_of(folder) if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert "script-src 'sha256-" in policy


def test_a_thousand_cells_with_large_drawings_stay_under_eight_megabytes(tmp_path: Path) -> None:
    sizes = (1, 2, 4, 8, 16, 32)
    folder = write_sweep(
        tmp_path / "s",
        dims=tuple((a, a, b) for a in sizes for b in sizes),
        shots=(16, 64, 256, 1024),
        seeds=tuple(range(7)),
    )
    captions = {f"id{number}": f"drawing {number}" for number in range(60)}
    for number in range(1_100, 1_103):
        write_run(folder / str(number), result((64, 64, 64), 1024, number), captions, picture=png(290, 290, number))
    written = write_report([folder])
    assert written.runs == 1_011
    assert written.report.stat().st_size < 8_000_000
    pictures = [attributes for tag, attributes in Tags(written.report.read_text()).found if tag == "img"]
    assert 3 < len(pictures) <= 24
    assert "11 more are in results.csv" in written.report.read_text()


def test_several_sweeps_are_reported_together_where_both_lie(tmp_path: Path) -> None:
    first = write_sweep(tmp_path / "sweeps" / "a", shots=(16,))
    second = write_sweep(tmp_path / "sweeps" / "b", shots=(64,))
    written = write_report([first, second])
    assert written.report == tmp_path / "sweeps" / "report.html"
    assert written.runs == 24
    assert write_report([first, second], tmp_path / "new" / "place").report.parent == tmp_path / "new" / "place"


def test_the_command_says_where_the_report_is_and_what_was_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path / "s", shots=(16,), seeds=(0,))
    (folder / "2" / "result.json").write_text("{")
    assert main([str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{folder / 'report.html'} (3 runs)\n"
    assert f"skipped {folder / '2' / 'result.json'}: not JSON" in err
    for number in (0, 1, 3):
        (folder / str(number) / "result.json").write_text("{")
    assert main([str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == f"lockdec: {folder}: no run here can be read; run its command again"
    assert main([str(tmp_path / "absent")]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no such folder" in err


def test_a_page_says_what_was_made_before_the_cells_and_what_it_saved(tmp_path: Path) -> None:
    """Two cells that reuse a stage of 100 s and make one each of 10 s: 120 s and their reading instead of 220 s."""
    folder = tmp_path / "s"
    for number in (0, 1):
        stages = {
            "pretrain": {"key": "a" * 64, "reused": True, "seconds": 0.0},
            "finetune": {"key": f"{number}" * 64, "reused": False, "seconds": 10.0},
        }
        write_run(folder / str(number), result((2, 2, 2), 16, number) | {"stages": stages}, extras=False)
    (folder / MADE_BEFORE).parent.mkdir()
    unused = {"key": "f" * 64, "reused": False, "seconds": 999.0}  # by other cells of the sweep, which are gone
    made = {"pretrain": {"key": "a" * 64, "reused": False, "seconds": 100.0}, "attach": unused}
    (folder / MADE_BEFORE).write_text(json.dumps({"schema": 1, "stages": made}))
    text = " ".join(Tags(write_report([folder]).report.read_text()).text.split())
    assert "Stages that all cells share were made before the cells started: pretrain." in text
    assert "These cells spent 120 s in stages, shared stages included." in text
    assert "Without reuse they would have spent about 220 s, judged by the mean time of each stage" in text


def test_cells_that_different_code_has_made_are_not_compared_without_a_word(tmp_path: Path) -> None:
    for number, version in enumerate((7, 8, None)):
        stage = {"key": f"{number}" * 64, "reused": False, "seconds": 1.0}
        stages = {"evaluate": stage | ({} if version is None else {"version": version})}
        write_run(tmp_path / "s" / str(number), result((2, 2, 2), 16, number) | {"stages": stages}, extras=False)
    text = " ".join(Tags(write_report([tmp_path / "s"]).report.read_text()).text.split())
    assert "evaluate: made by several versions of its code (7, 8), which give other results" in text
    assert "several versions" not in write_report([tmp_path / "s" / "0"]).report.read_text()


def test_settings_that_mix_states_or_decoders_are_noted(tmp_path: Path) -> None:
    for number in range(3):
        key = {"reused": True, "seconds": 1.0}
        stages = {"pretrain": {"key": "a" * 64, **key}, "attach": {"key": f"{min(number, 1)}" * 64, **key}}
        write_run(tmp_path / "s" / str(number), result((2, 2, 2), 16, number) | {"stages": stages}, extras=False)
    text = " ".join(Tags(write_report([tmp_path / "s"]).report.read_text()).text.split())
    assert "1 setting mixes states of several data sets or encoders: an encoder was trained anew, or files" in text
    assert "several pretrained decoders" not in text


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", extras=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file: the report cannot be written here"):
        write_report([folder], tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no result\.json"):
        write_report([tmp_path / "empty"])


def test_one_run_is_reported_without_torch_and_in_a_moment(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", picture=png(96, 96))
    code = (
        "import sys, time; from pathlib import Path; from lockdec.report.page import write_report;"
        f"write_report([Path({str(folder)!r})]);"
        "print('torch' in sys.modules, 'scipy' in sys.modules, time.process_time())"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch, scipy, seconds = finished.stdout.split()
    assert (torch, scipy) == ("False", "False")
    assert float(seconds) < 1.5


def test_every_metric_has_a_name_for_people() -> None:
    assert set(METRIC_LABELS) == set(ALL_METRICS) == {*METRICS, *EARLIER}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str) -> None:
    light, dark = (HERE / "page.css").read_text().split("prefers-color-scheme: dark")
    colours = dict(re.findall(r"(--[a-z]+): #([0-9a-f]{6});", light if scheme == "light" else dark))

    def luminance(name: str) -> float:  # WCAG 2.2, relative luminance
        parts = [int(colours[name][place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text in ("--ink", "--muted", "--accent", "--good", "--bad"):
        for ground in ("--page", "--raised"):
            low, high = sorted((luminance(text), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_each_control_of_a_run_has_a_column_with_its_own_scores(tmp_path: Path) -> None:
    scores = {"locked": 0.125, "shuffled": 0.25, "nearest_neighbour": 0.5}
    content = result() | {
        "metrics": {"token_f1": 0.75},
        "controls": {name: {"token_f1": score} for name, score in scores.items()},
    }
    page = write_report([write_run(tmp_path / "run", content, extras=False)]).report.read_text()
    table = page[page.index("<table>") : page.index("</tbody>")].replace('<span class="gap">', " ")
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", table)]
    assert dict(zip(cells[:5], cells[5:], strict=True)) == {
        "Metric": "token F1",
        "captioner": "0.750",
        "locked": "0.125 +0.625",
        "shuffled": "0.250 +0.500",
        "nearest_neighbour": "0.500 +0.250",
    }


def test_a_folder_whose_name_turns_the_text_around_is_shown_without_that(tmp_path: Path) -> None:
    folder = tmp_path / "left \N{RIGHT-TO-LEFT OVERRIDE} right"
    write_run(folder / "0", result(), extras=False)
    (folder / "1").mkdir()
    (folder / "1" / RESULT).write_text("{")
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in write_report([folder]).report.read_text()


def test_a_folder_whose_name_is_not_unicode_has_a_report(tmp_path: Path) -> None:
    """As a stranger's archive may leave one."""
    folder = write_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff")), result(), captions={"a": "b"})
    assert "<html" in write_report([folder]).report.read_text()
    assert write_report([tmp_path]).runs == 1
