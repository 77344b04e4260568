"""Each table and picture of the pages says where it comes from, and what no longer follows from the code is found."""

from __future__ import annotations

import re
from pathlib import Path

import figures
from placeholders import fill, names

from lockdec.pipeline.assembling import Assembly

NUMBERS = "| shots | token F1 |\n| --- | --- |\n| 64 | 0.512 |\n| 256 | 0.634 |\n"


def shown(tmp_path: Path, text: str) -> list[figures.Shown]:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return list(figures.shown(page))


def test_every_table_of_results_and_every_picture_says_where_it_comes_from() -> None:
    found = [one for page in figures.pages() for one in figures.shown(page)]
    assert len(found) > 40
    assert [f"{one.page.name}:{one.line}" for one in found if not one.origin] == []


def test_results_named_by_a_page_are_there_and_have_the_runs_of_its_tables() -> None:
    places = [one for page in figures.pages() for one in figures.shown(page) if one.results is not None]
    assert len({one.results for one in places}) > 4
    for one in places:
        assert one.results is not None
        assert one.results.is_file(), one
        if one.group:
            assert figures.runs(one), one


def test_an_origin_is_of_the_next_table_alone_and_tables_without_results_need_none(tmp_path: Path) -> None:
    first, second, picture = shown(
        tmp_path,
        f"<!-- origin: a.csv, commit 1234567 -->\n\n{NUMBERS}\n\n{NUMBERS}\n| key | value |\n|---|---|\n| a | 0.1 |\n"
        "\n```\n| not | 0.1 | 0.2 |\n```\n<!-- origin: by hand -->\n![words](x.png)\n",
    )
    assert (first.line, first.origin, first.results) == (3, "a.csv, commit 1234567", tmp_path / "a.csv")
    assert (second.line, second.origin, second.results) == (9, "", None)
    assert (picture.origin, picture.results) == ("by hand", None)


def test_a_place_has_its_origin_within_and_keeps_it_unless_told_another(tmp_path: Path) -> None:
    text = f"<!-- reached -->\n{NUMBERS}<!-- end -->\n\n{NUMBERS}"
    assert [one.origin for one in shown(tmp_path, text)] == ["", ""]
    once = fill(text, {"reached": NUMBERS.rstrip()}, "page.md", "results.csv, commit 1234567")
    assert names(once) == ["reached"]
    assert [(one.group, one.origin) for one in shown(tmp_path, once)] == [
        ("reached", "results.csv, commit 1234567"),
        ("", ""),
    ]
    assert fill(once, {"reached": NUMBERS.rstrip()}, "page.md") == once


def test_a_run_follows_until_its_key_or_its_options_change(assembled: Assembly) -> None:
    row = {f"stages.{name}.key": key for name, key in assembled.keys.items()} | {"overrides": "debug=tiny"}
    with figures.composing():
        today = figures.Today()
        assert today.differs(row) == ""
        assert today.differs(row | {"stages.finetune.key": "0" * 64}) == "finetune has another key"
        assert today.differs(row | {"overrides": "debug=tiny seed=1"}) == "unlock has another key"
        assert today.differs(row | {"overrides": "debug=tiny nothing=1"}) == "its options are no longer there"
        assert "d_k" in today.differs(row | {"overrides": "debug=tiny cross_attention.d_k=0"})


def test_the_commands_of_a_sweep_are_those_that_the_page_shows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n```\npython -m lockdec.run -m seed=0,1 \\\n    sweep_name=one  # words\n"
        "python -m lockdec.run sweep_name=two\n```\n",
        encoding="utf-8",
    )
    assert [command[1:] for command in figures.commands(page, {"one"})] == [
        ["-m", "lockdec.run", "-m", "seed=0,1", "sweep_name=one"]
    ]


def test_sweeps_of_a_page_that_share_a_name_name_their_cells() -> None:
    """Cells are named by their numbers otherwise, and those of one command would take the places of another's."""
    commands: dict[tuple[str, str], set[str]] = {}
    for page in figures.pages():
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r"^python -m lockdec\.run -m .*", text, re.MULTILINE):
            for name in re.findall(r"sweep_name=(\S+)", command):
                commands.setdefault((page.name, name), set()).add(command)
    shared = {at: found for at, found in commands.items() if len(found) > 1}
    assert len(shared) > 2
    assert [at for at, found in shared.items() if not all("hydra.sweep.subdir=" in command for command in found)] == []
