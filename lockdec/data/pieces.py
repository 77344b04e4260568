"""Generated pieces of music with captions that name seven properties, which can be counted. Needs no torch.

`python -m lockdec.data.pieces FOLDER` writes pieces as files, to listen to or for other programs.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from lockdec.data.captions import CaptionSet, Case, Input, Lexicon, Modality, Split, digest
from lockdec.data.composing import PROPERTIES, SAMPLE_RATE, Piece, Properties, compose
from lockdec.data.midi import midi_file
from lockdec.data.splits import FEWEST, random_split, sizes
from lockdec.errors import ConfigError, DataError, StoreError, visible
from lockdec.terminal import forgive, plain_errors

Form: TypeAlias = Literal["symbols", "roll", "sound"]
PieceSplit: TypeAlias = Literal["random", "compositional", "attribute"]

VERSION = "1"  # of how pieces are composed and rendered
COMBINED = ("mode", "contour", "texture")  # whose combinations the split "compositional" holds out
_MODALITIES: dict[Form, Modality] = {"symbols": "text", "roll": "image", "sound": "array"}


class Pieces(CaptionSet):
    """Pieces with independent properties: tonic, mode, metre, register, tempo, contour and texture.

    Nothing is read; the pieces follow from the seed. No two have the same properties. The first caption of each is a
    wording drawn at random; the other wordings follow.

    Args:
        form: what inputs are: "symbols" (a text of events), "roll" (a picture of 64 x 64 pixels) or "sound" (samples at
            16 kHz, of shape (samples,)).
        seed: draws the pieces.
        count: how many.
        wrong_notes: the share of the melody's notes that are moved out of the scale, from 0 to 1.
        split: "random"; "compositional": combinations of mode, contour and texture in val and test are not in train;
            "attribute": a value is in no training piece and in every other one.
        unseen: that value, such as "dorian".
        split_seed: seed of the split.
        val, test: how many pieces to hold out, at least, since combinations are held out whole; with "attribute", each
            has half of the pieces with that value, however many there are.
        limit: use only this many pieces; val and test are then at most an eighth of it.

    Raises:
        ConfigError: a value of `data.*` is not available, or the split leaves train, val or test empty.
    """

    def __init__(
        self,
        form: Form = "symbols",
        seed: int = 0,
        count: int = 4000,
        wrong_notes: float = 0.0,
        split: PieceSplit = "random",
        unseen: str = "dorian",
        split_seed: int = 0,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        if not 0 <= wrong_notes <= 1:
            raise ConfigError(f"data.wrong_notes={wrong_notes}: a share, from 0 to 1")
        if not FEWEST <= count <= 20_000:
            raise ConfigError(f"data.count={count}: from {FEWEST} to 20000 pieces")
        count, val, test = sizes("pieces", count, limit, val, test)
        self.form: Form = form
        self.rate = SAMPLE_RATE if form == "sound" else None
        self.seed, self.wrong_notes = seed, wrong_notes
        rng = random.Random(f"pieces {seed}")
        drawn: dict[Properties, None] = {}
        while len(drawn) < count:
            drawn[Properties.draw(rng)] = None
        self.properties = tuple(drawn)
        captions = []
        for properties in self.properties:
            wordings = properties.wordings()
            captions.append(rng.sample(wordings, len(wordings)))
        super().__init__(
            ids=[f"piece-{number:05d}" for number in range(count)],
            captions=captions,
            splits=_split(self.properties, split, unseen, split_seed, val, test),
            modality=_MODALITIES[form],
            inputs_fingerprint=digest([VERSION, form, seed, wrong_notes]),
            case=case,
        )

    @property
    def attributes(self) -> Lexicon:
        """The properties, and the words that express each value in a caption."""
        own = {"tonic": {value: f"in {value}" for value in PROPERTIES["tonic"]}}
        return {name: own.get(name, {value: value for value in values}) for name, values in PROPERTIES.items()}

    @property
    def prompt(self) -> str:
        """Words that lead a decoder which knows English to a caption."""
        return "A piece of music:"

    def piece(self, row: int) -> Piece:
        """The piece of a row."""
        return compose(self.properties[row], f"{self.seed} {row}", self.wrong_notes)

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """The pieces of these rows, in the form that was asked for."""
        pieces = [self.piece(row) for row in indices]
        if self.form == "symbols":
            return [piece.events for piece in pieces]
        if self.form == "roll":
            return [piece.roll for piece in pieces]
        return [piece.sound() for piece in pieces]

    def save(self, folder: Path) -> None:
        """Write a MIDI file and a WAV file of each piece, and a captions.csv by which data=folder reads the sounds.

        Raises:
            DataError: soundfile or music21 is not installed.
            StoreError: the folder cannot be written to.
        """
        try:
            import soundfile
        except ImportError as error:
            raise DataError("WAV files are written by soundfile: pip install 'lockdec[sound]'") from error
        split = {row: name for name, rows in self.splits.items() for row in rows}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file)
                table.writerow(["input", "split", *("caption" if n == 1 else f"caption_{n}" for n in range(1, 4))])
                for row, name in enumerate(self.ids):
                    piece = self.piece(row)
                    (folder / f"{name}.mid").write_bytes(midi_file(piece))
                    soundfile.write(folder / f"{name}.wav", piece.sound(), SAMPLE_RATE)
                    table.writerow([f"{name}.wav", split[row], *self.captions[row]])
        except OSError as error:
            raise StoreError(f"{folder}: cannot write there ({error.strerror or error})") from error


def _split(
    properties: tuple[Properties, ...], split: PieceSplit, unseen: str, seed: int, val: int, test: int
) -> dict[Split, list[int]]:
    name = next((name for name, values in PROPERTIES.items() if unseen in values), None)
    if name is None:
        every = ", ".join(value for values in PROPERTIES.values() for value in values)
        raise ConfigError(f"data.unseen={unseen} is not one of: {every}")
    if split == "random":
        return random_split(len(properties), seed, val, test)
    rows = random.Random(seed).sample(range(len(properties)), len(properties))
    found: dict[Split, list[int]] = {"test": [], "val": [], "train": []}
    if split == "attribute":
        having = [row for row in rows if getattr(properties[row], name) == unseen]
        others = [row for row in rows if getattr(properties[row], name) != unseen]
        half = len(having) // 2
        found = {"test": having[:half], "val": having[half:], "train": others}
        if not all(found.values()):
            raise ConfigError(
                f"data.unseen={unseen}: {len(having)} of {len(rows)} pieces have it, and val and test need one each; "
                "use more pieces (data.limit, data.count) or another value"
            )
        return found
    combinations: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        combinations.setdefault(tuple(getattr(properties[row], name) for name in COMBINED), []).append(row)
    for several in combinations.values():
        part: Split = "test" if len(found["test"]) < test else "val" if len(found["val"]) < val else "train"
        found[part] += several
    if not all(found.values()):
        raise ConfigError(
            f"data.val={val} data.test={test}: data.split=compositional holds out whole combinations, and of "
            f"{len(rows)} pieces none is left for {next(name for name, members in found.items() if not members)}; "
            "hold out fewer, or use more pieces (data.limit, data.count)"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="python -m lockdec.data.pieces",
        description="Writes generated pieces as MIDI and WAV files, with a captions.csv for data=folder.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="for the files")
    parser.add_argument("--count", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (%(default)s)")
    parser.add_argument(
        "--wrong-notes", type=float, default=0.0, help="the share of the melody's notes out of the scale"
    )
    options = parser.parse_args(arguments)
    held_out = options.count // 8
    forgive()
    with plain_errors():
        pieces = Pieces(
            seed=options.seed, count=options.count, wrong_notes=options.wrong_notes, val=held_out, test=held_out
        )
        pieces.save(options.folder)
    print(f"{visible(str(options.folder))}: {len(pieces)} pieces, each a .mid and a .wav, and captions.csv")


if __name__ == "__main__":
    main()
