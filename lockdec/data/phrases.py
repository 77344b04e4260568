"""Phrases spoken by eSpeak NG, captioned by speaker, pace and words: `python -m lockdec.data.phrases FOLDER`.

A recipe and no recordings: the sounds follow from the seed and the version of eSpeak NG, whose library the package
espeakng-loader carries. The command writes a folder for data=folder. Needs no torch.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lockdec.data.captions import Split
from lockdec.errors import ConfigError, DataError, StoreError, visible
from lockdec.terminal import forgive, plain_errors

PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "pace": ("slow", "moderate", "fast"),
    "accent": ("american", "british", "scottish"),
    "speaker": ("woman", "man"),
    "number": ("two", "three", "four", "five"),
    "colour": ("red", "blue", "green", "yellow", "black", "white", "brown", "purple"),
    "thing": ("birds", "cats", "horses", "apples", "houses", "flowers", "shoes", "trains", "spoons", "windows"),
}
_VOICES = {"american": "en-us", "british": "en-gb-x-rp", "scottish": "en-gb-scotland"}
_SPEAKERS = {"woman": ("f1", "f2", "f3", "f4"), "man": ("m1", "m3", "m4", "m7")}
_WORDS_A_MINUTE = {"slow": (85, 105), "moderate": (150, 180), "fast": (260, 320)}
_SYNCHRONOUS, _RATE = 2, 1  # of eSpeak NG's speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, espeakRATE
_UTF8 = 1
_HELD_OUT = 8  # one pair of colour and thing in so many is in val, and one in test


@dataclass(frozen=True)
class Phrase:
    """Who says what; each value is one of `PROPERTIES`."""

    pace: str
    accent: str
    speaker: str
    number: str
    colour: str
    thing: str

    @property
    def words(self) -> str:
        """What is said."""
        return f"{self.number} {self.colour} {self.thing}"

    @property
    def caption(self) -> str:
        """`a slow scottish woman: three red birds`."""
        return f"a {self.pace} {self.accent} {self.speaker}: {self.words}"


class Speech:
    """eSpeak NG, from the package espeakng-loader.

    Attributes:
        rate: samples a second.

    Raises:
        DataError: the package is not installed, or its library does not load.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader

            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            data = str(espeakng_loader.get_data_path()).encode()
        except (ImportError, OSError, RuntimeError) as error:
            raise DataError(f"phrases are spoken by eSpeak NG: pip install 'lockdec[speech]' ({error})") from error
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
        if self.rate <= 0:
            raise DataError("espeakng-loader: eSpeak NG does not start")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))
        self._heard: list[NDArray[np.int16]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(self._hear)  # the library keeps no reference to it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, words_a_minute: int) -> NDArray[np.int16]:
        """The samples of a text.

        Raises:
            DataError: there is no such voice, or the text cannot be spoken.
        """
        self._heard.clear()
        content = text.encode()
        failed = (
            self._library.espeak_SetVoiceByName(voice.encode())
            or self._library.espeak_SetParameter(_RATE, words_a_minute, 0)
            or self._library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
            or self._library.espeak_Synchronize()
        )
        if failed or not self._heard:
            raise DataError(f"eSpeak NG does not speak {text!r} in the voice {voice}")
        return np.concatenate(self._heard)

    def _hear(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _: object) -> int:
        if samples and count:
            self._heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def draw(count: int, seed: int) -> list[Phrase]:
    """Different phrases, each property drawn by itself.

    Raises:
        ConfigError: there are not so many.
    """
    most = int(np.prod([len(values) for values in PROPERTIES.values()])) // 2
    if not 16 <= count <= most:
        raise ConfigError(f"--count={count}: from 16 to {most} phrases")
    rng, found = random.Random(f"phrases {seed}"), dict[Phrase, None]()
    while len(found) < count:
        found[Phrase(**{name: rng.choice(values) for name, values in PROPERTIES.items()})] = None
    return list(found)


def split(phrases: Sequence[Phrase], seed: int) -> list[Split]:
    """For each phrase its split: pairs of colour and thing in val and test are not in train, but each of the two is."""
    colours, things = PROPERTIES["colour"], PROPERTIES["thing"]
    shift = random.Random(f"split {seed}").randrange(len(things))
    places: dict[int, Split] = {0: "test", 1: "val"}
    # Diagonals of the table of colours and things: each colour and each thing loses one or two partners in eight.
    return [
        places.get((colours.index(each.colour) + things.index(each.thing) + shift) % _HELD_OUT, "train")
        for each in phrases
    ]


def save(phrases: Sequence[Phrase], folder: Path, seed: int) -> None:
    """Write the sounds, and the captions.csv by which data=folder reads them.

    Raises:
        DataError: soundfile or espeakng-loader is not installed.
        StoreError: the folder cannot be written to.
    """
    try:
        import soundfile
    except ImportError as error:
        raise DataError("WAV files are written by soundfile: pip install 'lockdec[sound]'") from error
    speech, rng = Speech(), random.Random(f"voices {seed}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["input", "caption", "split", *PROPERTIES])
            for number, (phrase, part) in enumerate(zip(phrases, split(phrases, seed), strict=True)):
                voice = f"{_VOICES[phrase.accent]}+{rng.choice(_SPEAKERS[phrase.speaker])}"
                samples = speech.say(phrase.words, voice, rng.randint(*_WORDS_A_MINUTE[phrase.pace]))
                name = f"phrase-{number:05d}.wav"
                soundfile.write(folder / name, samples, speech.rate)
                table.writerow([name, phrase.caption, part, *asdict(phrase).values()])
    except OSError as error:
        raise StoreError(f"{folder}: cannot write there ({error.strerror or error})") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="python -m lockdec.data.phrases",
        description="Lets eSpeak NG speak phrases, and writes a captions.csv for data=folder.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="for the sounds")
    parser.add_argument("--count", type=int, default=1500, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws phrases, voices and split (%(default)s)")
    options = parser.parse_args(arguments)
    forgive()
    with plain_errors():
        phrases = draw(options.count, options.seed)
        save(phrases, options.folder, options.seed)
    print(f"{visible(str(options.folder))}: {len(phrases)} phrases and captions.csv")


if __name__ == "__main__":
    main()
