"""Composed pieces have the properties that they were composed to have."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lockdec.data.composing import BARS, LOWEST, PITCHES, PROPERTIES, Note, Piece, Properties, compose

# The intervals above the tonic that occur in each mode, in semitones.
MODES = {
    frozenset({0, 2, 4, 5, 7, 9, 11}): "major",
    frozenset({0, 2, 3, 5, 7, 8, 10}): "minor",
    frozenset({0, 2, 3, 5, 7, 9, 10}): "dorian",
    frozenset({0, 2, 4, 5, 7, 9, 10}): "mixolydian",
}


def drawn(count: int) -> list[tuple[Properties, Piece]]:
    rng = random.Random(0)
    several = [Properties.draw(rng) for _ in range(count)]
    return [(properties, compose(properties, str(number))) for number, properties in enumerate(several)]


PIECES = drawn(300)


def melody(piece: Piece) -> list[Note]:
    return [note for note in piece.notes if note.melody]


def accompaniment(piece: Piece) -> list[Note]:
    return [note for note in piece.notes if not note.melody]


def modes_of(pitches: Sequence[int], tonic: int) -> list[str]:
    intervals = {(pitch - tonic) % 12 for pitch in pitches}
    return [mode for scale, mode in MODES.items() if intervals <= scale]


@pytest.mark.parametrize("voice", [melody, lambda piece: piece.notes])
def test_the_notes_determine_the_mode(voice: object) -> None:
    for properties, piece in PIECES:
        pitches = [note.pitch for note in voice(piece)]  # type: ignore[operator]
        assert modes_of(pitches, PROPERTIES["tonic"].index(properties.tonic)) == [properties.mode]


def test_a_melody_begins_and_ends_on_the_tonic() -> None:
    for properties, piece in PIECES:
        notes = melody(piece)
        assert {notes[0].pitch % 12, notes[-1].pitch % 12} == {PROPERTIES["tonic"].index(properties.tonic)}


def test_bars_are_as_long_as_the_metre_says() -> None:
    sixteenths = {"2/4": 8, "3/4": 12, "4/4": 16, "6/8": 12}
    for properties, piece in PIECES:
        assert piece.bar == sixteenths[properties.metre]
        assert max(note.start + note.length for note in piece.notes) == BARS * piece.bar
        assert all(note.start % piece.bar + note.length <= piece.bar for note in piece.notes)  # none crosses a bar line
        loud = {note.start for note in melody(piece) if note.loudness == 1}
        assert loud == {bar * piece.bar for bar in range(BARS)}


def test_three_four_and_six_eight_differ_in_where_notes_start() -> None:
    for properties, piece in PIECES:
        starts = {note.start % 12 for note in piece.notes}
        if properties.metre == "3/4" and properties.texture in ("block chords", "a bass line"):
            assert {4, 8} <= starts
        if properties.metre == "6/8":
            assert 6 in {note.start % 12 for note in melody(piece)}


def test_registers_do_not_overlap_in_the_mean() -> None:
    means: dict[str, list[float]] = {}
    for properties, piece in PIECES:
        lowest = min(note.pitch for note in melody(piece)) - PROPERTIES["tonic"].index(properties.tonic)
        means.setdefault(properties.register, []).append(lowest)
    assert max(means["low"]) < min(means["middle"])
    assert max(means["middle"]) < min(means["high"])


def test_the_tempo_is_that_of_its_class() -> None:
    beats: dict[str, set[int]] = {}
    for properties, piece in PIECES:
        beats.setdefault(properties.tempo, set()).add(piece.beats_a_minute)
    assert max(beats["slow"]) < min(beats["moderate"])
    assert max(beats["moderate"]) < min(beats["fast"])


def test_a_sixteenth_lasts_as_the_beat_says() -> None:
    for properties, piece in PIECES:
        sixteenths = 6 if properties.metre == "6/8" else 4
        assert piece.sixteenth == pytest.approx(60 / piece.beats_a_minute / sixteenths)


def test_melodies_have_their_contour() -> None:
    for properties, piece in PIECES:
        notes = melody(piece)
        first, last = notes[0].pitch, notes[-1].pitch
        highest = max(note.pitch for note in notes)
        assert (last - first == 12) == (properties.contour == "rising")
        assert (first - last == 12) == (properties.contour == "falling")
        if properties.contour in ("arched", "wavy"):
            assert first == last < highest


def test_textures_differ_in_how_many_notes_sound_and_how_long() -> None:
    for properties, piece in PIECES:
        notes = accompaniment(piece)
        together = max(sum(note.start == other.start for other in notes) for note in notes)
        shortest = min(note.length for note in notes)
        assert together == {"block chords": 3, "a drone": 2, "broken chords": 1, "a bass line": 1}[properties.texture]
        assert (shortest == 2) == (properties.texture == "broken chords")
        assert (shortest == piece.bar) == (properties.texture == "a drone")


def test_every_wording_names_every_property() -> None:
    properties = PIECES[0][0]
    for wording in properties.wordings():
        other = replace(properties, tonic="x", mode="x", metre="x", register="x", tempo="x", contour="x", texture="x")
        assert len(properties.wordings()) == len(set(properties.wordings())) == 3
        for name in PROPERTIES:
            assert getattr(properties, name) in wording
        assert all("x" in text.split() or "x," in text for text in other.wordings())


def test_the_same_seed_composes_the_same_piece_and_another_does_not() -> None:
    properties = PIECES[0][0]
    assert compose(properties, "a") == compose(properties, "a") != compose(properties, "b")


def test_a_share_of_wrong_notes_leaves_the_scale() -> None:
    for properties, piece in PIECES[:100]:
        wrong = compose(properties, str(PIECES.index((properties, piece))), wrong_notes=0.5)
        tonic = PROPERTIES["tonic"].index(properties.tonic)
        [scale] = [scale for scale, mode in MODES.items() if mode == properties.mode]
        outside = sum((note.pitch - tonic) % 12 not in scale for note in melody(wrong))
        assert outside == round(0.5 * (len(melody(wrong)) - 2))
        assert accompaniment(wrong) == accompaniment(piece)


def test_events_are_the_notes() -> None:
    for _, piece in PIECES[:50]:
        words, bar, start, found = piece.events.split(), -1, 0, []
        assert words.pop(0) == f"t{piece.beats_a_minute}"
        for word in words:
            if word == "bar":
                bar += 1
            elif word.isdecimal():
                start = bar * piece.bar + int(word)
            elif word[0] == "n":
                found.append([start, int(word[1:]), 0])
            else:
                found[-1][2] = int(word[1:])
        assert found == [[note.start, note.pitch, note.length] for note in piece.notes]


def test_a_roll_shows_each_note_where_it_sounds() -> None:
    for _, piece in PIECES:
        pixels = np.asarray(piece.roll)
        for note in piece.notes:
            row = PITCHES - 1 - (note.pitch - LOWEST)
            assert (pixels[row, note.start : note.start + note.length, 0 if note.melody else 1] == 255).all()
        assert pixels[:, BARS * piece.bar :].sum() == 0


def test_a_sound_has_the_frequencies_of_its_notes() -> None:
    piece = Piece((Note(0, 69, 16, 1.0, True),), 16, (4, 4), 60, 0.25)  # the a of 440 Hz, for four seconds
    sound = piece.sound(16_000)
    assert sound.dtype == np.float32
    assert len(sound) == round(4.5 * 16_000)
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.argmax(spectrum) / len(sound) * 16_000 == pytest.approx(440, abs=1)
    assert np.abs(sound).max() <= 1


def test_a_sound_lasts_as_long_as_the_piece() -> None:
    properties, piece = PIECES[1]
    beats = BARS * {"2/4": 2, "3/4": 3, "4/4": 4, "6/8": 2}[properties.metre]
    assert len(piece.sound()) / 16_000 == pytest.approx(beats * 60 / piece.beats_a_minute + 0.5, abs=0.01)
