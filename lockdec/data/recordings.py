"""Spoken words in 23 languages, out of a Debian package: `python -m lockdec.data.recordings PACKAGE.deb FOLDER`.

KTuberling, a game for small children, says in their language what they put on a potato: some 1,800 recordings by
volunteers, each named by an English word. The command unpacks them, without installing anything, beside a captions.csv
for data=folder. Needs no torch.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import random
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lockdec.data.captions import Split
from lockdec.errors import DataError, StoreError, visible
from lockdec.terminal import forgive, plain_errors

LANGUAGES: Mapping[str, str] = {
    "ca": "catalan", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish", "fi": "finnish",
    "fr": "french", "ga": "irish", "gl": "galician", "it": "italian", "lt": "lithuanian", "nds": "low german",
    "nl": "dutch", "nn": "norwegian", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sl": "slovenian",
    "sr": "serbian", "sr@ijekavian": "serbian", "sr@ijekavianlatin": "serbian", "sr@latin": "serbian",
    "sv": "swedish", "uk": "ukrainian", "wa": "walloon",
}  # fmt: skip
_SOUNDS = "./usr/share/ktuberling/sounds/"
_SAID = re.compile(r'<sound\s+name="([\w-]+)"\s+file="([^"]+)"')
_SCENE = re.compile(r"^(butterflies|egypt|moon|pizzeria|robot_workshop|tux|tv|xmas)[_-]|\d+$")  # where the word is said
_LARGEST = 1 << 28  # bytes of the package, and of what it unpacks to
_MAGIC, _HEADER = b"!<arch>\n", 60  # of the archive that a Debian package is (deb(5))


@dataclass(frozen=True)
class Recording:
    """A spoken word.

    Attributes:
        name: of its file, unique: `da-hat.ogg`.
        word: in English, whatever the language is.
        language: that it is said in.
        content: of the file: Ogg (Vorbis or Opus) or WAV.
    """

    name: str
    word: str
    language: str
    content: bytes

    @property
    def caption(self) -> str:
        """`hat in danish`."""
        return f"{self.word} in {self.language}"


def read_package(path: Path) -> list[Recording]:
    """The recordings in KTuberling's data package, sorted by name; copies of one file are one recording.

    Raises:
        DataError: the file is not that package, or is damaged.
    """
    try:
        files = dict(_sounds(path))
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError) as error:
        raise DataError(f"{path}: not a Debian package that can be read ({error})") from error
    found: dict[str, Recording] = {}
    for code, language in LANGUAGES.items():
        for name, file in _SAID.findall(files.get(f"{code}.soundtheme", b"").decode(errors="replace")):
            content = files.get(file)
            if content is None:
                continue
            word = _SCENE.sub("", name).replace("_", " ").replace("-", " ").strip()
            ending = ".wav" if content.startswith(b"RIFF") else ".ogg"
            made = Recording(f"{code.replace('@', '-')}-{name}{ending}", word, language, content)
            found.setdefault(hashlib.sha256(content).hexdigest(), made)
    if not found:
        raise DataError(f"{path}: no recordings in it; it has to be Debian's package ktuberling-data")
    return sorted(found.values(), key=lambda each: each.name)


def split(recordings: Sequence[Recording], seed: int = 0, share: float = 0.1) -> list[Split]:
    """For each recording its split: held-out ones say a word that is known in other languages, in a known language.

    Args:
        share: of the recordings for val, and of them for test; fewer where words and languages would not stay known.
    """
    words, languages = (Counter(getattr(each, part) for each in recordings) for part in ("word", "language"))
    pairs = Counter(each.caption for each in recordings)
    splits: list[Split] = ["train"] * len(recordings)
    held_out: tuple[Split, ...] = ("test", "val")
    wanted = [part for part in held_out for _ in range(round(share * len(recordings)))]
    for row in random.Random(seed).sample(range(len(recordings)), len(recordings)):
        one = recordings[row]
        # A pair of word and language with one recording alone: the combination is then in no training caption.
        if wanted and pairs[one.caption] == 1 and words[one.word] > 2 and languages[one.language] > 5:
            splits[row] = wanted.pop(0)
            words[one.word] -= 1
            languages[one.language] -= 1
    return splits


def _sounds(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files below the folder of sounds, by their paths in it."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"more than {_LARGEST >> 20} MiB")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as one")
        while header := file.read(_HEADER):
            name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
            if size < 0:
                raise ValueError("a part of it has a negative size")
            content = file.read(size + size % 2)
            if name.startswith("data.tar"):
                break
        else:
            raise ValueError("it has no data.tar")
    left = _LARGEST
    with tarfile.open(fileobj=io.BytesIO(content[:size]), mode="r:*") as archive:
        for member in archive:
            if member.isfile() and member.name.startswith(_SOUNDS):
                left -= member.size
                if left < 0:
                    raise ValueError(f"it unpacks to more than {_LARGEST >> 20} MiB")
                unpacked = archive.extractfile(member)
                yield member.name.removeprefix(_SOUNDS), unpacked.read() if unpacked else b""


def save(recordings: Sequence[Recording], folder: Path, seed: int = 0) -> None:
    """Write the recordings, and the captions.csv by which data=folder reads them.

    Raises:
        StoreError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["input", "caption", "split"])
            for each, part in zip(recordings, split(recordings, seed), strict=True):
                (folder / each.name).write_bytes(each.content)
                table.writerow([each.name, each.caption, part])
    except OSError as error:
        raise StoreError(f"{folder}: cannot write there ({error.strerror or error})") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="python -m lockdec.data.recordings",
        description="Unpacks the spoken words of Debian's package ktuberling-data (GPL-2+), with a captions.csv.",
    )
    parser.add_argument("package", metavar="PACKAGE.deb", type=Path, help="apt-get download ktuberling-data")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="for the recordings")
    parser.add_argument("--seed", type=int, default=0, help="of the split (%(default)s)")
    options = parser.parse_args(arguments)
    forgive()
    with plain_errors():
        recordings = read_package(options.package)
        save(recordings, options.folder, options.seed)
    languages = len({each.language for each in recordings})
    words = len({each.word for each in recordings})
    print(f"{visible(str(options.folder))}: {len(recordings)} recordings of {words} words in {languages} languages")


if __name__ == "__main__":
    main()
