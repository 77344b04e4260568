"""MIDI files of pieces, read back by music21."""

from __future__ import annotations

import pytest
from music21 import converter, stream

from lockdec.data.midi import midi_file
from lockdec.data.pieces import Pieces


@pytest.mark.parametrize("wrong_notes", [0.0, 0.5])
def test_a_file_has_the_notes_the_metre_and_the_tempo_of_its_piece(wrong_notes: float) -> None:
    pieces = Pieces(count=100, val=10, test=10, wrong_notes=wrong_notes)
    metres = {properties.metre: row for row, properties in enumerate(pieces.properties)}
    for metre, row in metres.items():
        piece = pieces.piece(row)
        read = converter.parse(midi_file(piece), format="midi")
        assert isinstance(read, stream.Score)
        parts = [
            sorted((pitch.midi, float(note.offset) * 4) for note in part.flatten().notes for pitch in note.pitches)
            for part in read.parts
        ]
        assert parts == [
            sorted((note.pitch, float(note.start)) for note in piece.notes if note.melody is melody)
            for melody in (True, False)
        ]
        melody = {float(note.offset) * 4: float(note.quarterLength) * 4 for note in read.parts[0].flatten().notes}
        assert melody == {note.start: note.length for note in piece.notes if note.melody}
        [found] = {each.ratioString for each in read.flatten().getElementsByClass("TimeSignature")}
        assert found == metre
        seconds = read.flatten().getElementsByClass("MetronomeMark")[0].secondsPerQuarter()
        assert seconds == pytest.approx(4 * piece.sixteenth, rel=0.01)  # music21 rounds beats a minute
