"""Short pieces of music, composed to have given properties: a melody over an accompaniment. Needs no torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "tonic": ("c", "c sharp", "d", "e flat", "e", "f", "f sharp", "g", "a flat", "a", "b flat", "b"),
    "mode": ("major", "minor", "dorian", "mixolydian"),
    "metre": ("2/4", "3/4", "4/4", "6/8"),
    "register": ("low", "middle", "high"),
    "tempo": ("slow", "moderate", "fast"),
    "contour": ("rising", "falling", "arched", "wavy"),
    "texture": ("block chords", "broken chords", "a drone", "a bass line"),
}
BARS = 4
SAMPLE_RATE = 16_000  # of the sound, in Hz
LOWEST, PITCHES, COLUMNS = 34, 64, 64  # of a piano roll

_SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
_CHORDS = {  # the degree of each bar's root
    "major": (0, 3, 4, 0),
    "minor": (0, 3, 4, 0),
    "dorian": (0, 3, 6, 0),
    "mixolydian": (0, 6, 3, 0),
}
_TELLING = (2, 5, 6)  # the degrees by which the four modes differ: third, sixth and seventh
_BEATS = {"2/4": (4, 4), "3/4": (4, 4, 4), "4/4": (4, 4, 4, 4), "6/8": (6, 6)}  # in sixteenths
_RHYTHMS = {
    "2/4": ((4, 4), (4, 2, 2), (2, 2, 4), (2, 2, 2, 2), (6, 2)),
    "3/4": ((4, 4, 4), (8, 4), (4, 2, 2, 4), (6, 2, 4), (2, 2, 4, 4)),
    "4/4": ((4, 4, 4, 4), (8, 4, 4), (4, 2, 2, 4, 4), (6, 2, 4, 4), (4, 4, 8), (2, 2, 2, 2, 4, 4)),
    "6/8": ((4, 2, 4, 2), (6, 4, 2), (2, 2, 2, 4, 2), (4, 2, 6), (2, 2, 2, 2, 2, 2)),
}
_LOWEST_TONIC = {"low": 48, "middle": 60, "high": 72}  # of the melody, as a MIDI pitch
_BEATS_A_MINUTE = {"slow": (56, 66), "moderate": (92, 104), "fast": (144, 160)}
_CURVES: Mapping[str, Callable[[float], float]] = {  # the degree at each moment, from 0 to 1
    "rising": lambda x: 7 * x,
    "falling": lambda x: 7 * (1 - x),
    "arched": lambda x: 3.5 - 3.5 * math.cos(2 * math.pi * x),
    "wavy": lambda x: 3.5 - 3.5 * math.cos(4 * math.pi * x),
}
_WORDINGS = (
    "a {tempo} {contour} melody in {tonic} {mode}, {metre}, in the {register} register, over {texture}",
    "{tempo} music in {tonic} {mode} and {metre}: the melody is {register} and {contour}, with {texture}",
    "over {texture}, a {register} and {contour} tune in {tonic} {mode}, {metre}, at a {tempo} pace",
)


@dataclass(frozen=True)
class Properties:
    """What a piece is like; each value is one of `PROPERTIES`."""

    tonic: str
    mode: str
    metre: str
    register: str
    tempo: str
    contour: str
    texture: str

    @classmethod
    def draw(cls, rng: random.Random) -> Properties:
        """Each property by itself, uniformly."""
        return cls(**{name: rng.choice(values) for name, values in PROPERTIES.items()})

    def wordings(self) -> list[str]:
        """The same in several sentences, each of which names every property."""
        return [wording.format(**asdict(self)) for wording in _WORDINGS]


@dataclass(frozen=True, order=True)
class Note:
    """One note.

    Attributes:
        start, length: in sixteenths of a whole note, from the beginning of the piece.
        pitch: as in MIDI: 60 is middle C, and 1 is a semitone.
        loudness: from 0 to 1.
        melody: whether it belongs to the melody.
    """

    start: int
    pitch: int
    length: int
    loudness: float
    melody: bool


@dataclass(frozen=True)
class Piece:
    """A composed piece.

    Attributes:
        notes: by start and pitch.
        bar: sixteenths in a bar.
    metre: its two numbers.
        beats_a_minute: of quarter notes, in 6/8 of dotted ones.
        sixteenth: how many seconds one lasts.
    """

    notes: tuple[Note, ...]
    bar: int
    metre: tuple[int, int]
    beats_a_minute: int
    sixteenth: float

    @property
    def events(self) -> str:
        """The tempo, then bars, positions in the bar, pitches and lengths (REMI, Huang and Yang 2020): a text.

        Neither key nor metre is written down, as they are not in the sound.
        """
        words, bar, start = [f"t{self.beats_a_minute}"], -1, -1
        for note in self.notes:
            if note.start // self.bar > bar:
                bar += 1
                words.append("bar")
            if note.start > start:
                start = note.start
                words.append(str(start % self.bar))
            words += [f"n{note.pitch}", f"l{note.length}"]
        return " ".join(words)

    @property
    def roll(self) -> Image.Image:
        """Pitch upwards and time to the right, a sixteenth each pixel: melody red, accompaniment green, onsets blue."""
        pixels = np.zeros((PITCHES, COLUMNS, 3), np.uint8)
        for note in self.notes:
            row = PITCHES - 1 - (note.pitch - LOWEST)
            pixels[row, note.start : note.start + note.length, 0 if note.melody else 1] = 255
            pixels[row, note.start, 2] = round(255 * note.loudness)
        return Image.fromarray(pixels)

    def sound(self, rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
        """The piece on an instrument like a plucked string: five harmonics that decay, at most 1 loud.

        Args:
            rate: samples a second.
        """
        ends = max(note.start + note.length for note in self.notes)
        samples = np.zeros(math.ceil((ends * self.sixteenth + 0.5) * rate), np.float32)
        for note in self.notes:
            first, seconds = round(note.start * self.sixteenth * rate), note.length * self.sixteenth + 0.3
            time = np.arange(min(round(seconds * rate), len(samples) - first), dtype=np.float32) / rate
            frequency = 440 * 2 ** ((note.pitch - 69) / 12)
            tone = sum(
                np.sin(2 * np.pi * frequency * harmonic * time) * np.exp(-(1 + harmonic) * time) / harmonic**1.5
                for harmonic in range(1, 6)
                if frequency * harmonic < rate / 2
            )
            attack = np.minimum(time / 0.01, 1)
            release = np.clip((seconds - time) / 0.3, 0, 1)
            samples[first : first + len(time)] += note.loudness * tone * attack * release
        return samples / max(1.0, float(np.abs(samples).max()))


def compose(properties: Properties, seed: str, wrong_notes: float = 0.0) -> Piece:
    """A piece of four bars that has the properties; its melody alone tells the mode.

    Args:
        seed: draws rhythm, melody and tempo.
        wrong_notes: the share of the melody's inner notes that are moved by a semitone out of the scale.
    """
    rng = random.Random(seed)
    beats = _BEATS[properties.metre]
    bar = sum(beats)
    low, high = _BEATS_A_MINUTE[properties.tempo]
    tempo = rng.randint(low, high)
    tonic = _LOWEST_TONIC[properties.register] + PROPERTIES["tonic"].index(properties.tonic)
    scale = _SCALES[properties.mode]
    rhythm = [length for _ in range(BARS - 1) for length in rng.choice(_RHYTHMS[properties.metre])] + [bar]
    starts = [sum(rhythm[:index]) for index in range(len(rhythm))]
    degrees = _melody(properties.contour, [start / starts[-1] for start in starts], rng)
    pitches = [tonic + _semitones(degree, scale) for degree in degrees]
    for index in rng.sample(range(1, len(pitches) - 1), round(wrong_notes * (len(pitches) - 2))):
        beside = [pitch for pitch in (pitches[index] - 1, pitches[index] + 1) if (pitch - tonic) % 12 not in scale]
        pitches[index] = rng.choice(beside)  # each degree of the four scales has a whole tone on one side at least
    notes = [
        Note(start, pitch, length, 1.0 if start % bar == 0 else 0.75, True)
        for start, pitch, length in zip(starts, pitches, rhythm, strict=True)
    ]
    for number, root in enumerate(_CHORDS[properties.mode]):
        for offset, degree, length in _accompaniment(properties.texture, root, beats):
            loudness = 0.6 if offset == 0 else 0.4
            notes.append(Note(number * bar + offset, tonic - 12 + _semitones(degree, scale), length, loudness, False))
    above, below = map(int, properties.metre.split("/"))
    return Piece(tuple(sorted(notes)), bar, (above, below), tempo, 60 / tempo / beats[0])


def _semitones(degree: int, scale: Sequence[int]) -> int:
    octave, step = divmod(degree, 7)
    return 12 * octave + scale[step]


def _melody(contour: str, places: Sequence[float], rng: random.Random) -> list[int]:
    """Degrees of the scale along a curve from tonic to tonic, with small steps aside, and all that tell the mode.

    Args:
        places: when each note starts, from 0 to 1.
    """
    wanted = [_CURVES[contour](place) for place in places]
    degrees = [round(value + rng.choice((-1, 0, 0, 1))) for value in wanted]
    degrees[0], degrees[-1] = round(wanted[0]), round(wanted[-1])
    free = list(range(1, len(degrees) - 1))
    for telling in _TELLING:
        closest = min(free, key=lambda index: abs(wanted[index] - telling))
        degrees[closest] = telling
        free.remove(closest)
    return degrees


def _accompaniment(texture: str, root: int, beats: Sequence[int]) -> list[tuple[int, int, int]]:
    """The notes of a bar below the melody: start in the bar, degree, and length."""
    if texture == "a drone":
        return [(0, degree, sum(beats)) for degree in (0, 4)]
    found: list[tuple[int, int, int]] = []
    for number, length in enumerate(beats):
        start = sum(beats[:number])
        if texture == "block chords":
            found += [(start, root + third, length) for third in (0, 2, 4)]
        elif texture == "a bass line":
            found.append((start, root + (0, 4, 2, 4)[number], length))
        else:
            thirds = (0, 2, 4) if length == 6 else (0, 4) if number == 0 else (2, 4)
            found += [(start + 2 * index, root + third, 2) for index, third in enumerate(thirds)]
    return found
