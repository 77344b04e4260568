"""Pieces as MIDI files, written by music21. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from lockdec.data.composing import Note, Piece
from lockdec.errors import DataError

TICKS = 480  # in a quarter note
_SIXTEENTH = TICKS // 4


def midi_file(piece: Piece) -> bytes:
    """A standard MIDI file of format 1: tempo and metre, the melody on the first channel, and the rest on the second.

    No key is written down, as there is none in the other forms of a piece.

    Raises:
        DataError: music21 is not installed.
    """
    try:
        from music21 import midi
    except ImportError as error:
        raise DataError("MIDI files are written by music21: pip install 'lockdec[music]'") from error

    def track(number: int, messages: Iterable[tuple[int, midi.MidiEvent]]) -> midi.MidiTrack:
        """A track of messages, each with the tick of its time, in order."""
        found, now = midi.MidiTrack(number), 0
        for tick, message in messages:
            found.events += [midi.DeltaTime(found, time=tick - now, channel=message.channel), message]
            now = tick
        end = midi.MidiEvent(found, type=midi.MetaEvents.END_OF_TRACK)
        end.data = b""
        found.events += [midi.DeltaTime(found, time=0), end]
        return found

    def meta(kind: midi.MetaEvents, data: bytes) -> midi.MidiEvent:
        message = midi.MidiEvent(type=kind)
        message.data = data
        return message

    def key(note: Note, pressed: bool) -> midi.MidiEvent:
        kind = midi.ChannelVoiceMessages.NOTE_ON if pressed else midi.ChannelVoiceMessages.NOTE_OFF
        message = midi.MidiEvent(type=kind, channel=1 if note.melody else 2)
        message.pitch, message.velocity = note.pitch, round(127 * note.loudness) if pressed else 0
        return message

    def voice(number: int, notes: Iterable[Note]) -> midi.MidiTrack:
        # At one moment, keys are released before others are pressed: a repeated note sounds twice.
        changes = [(note.start, True, note) for note in notes] + [(n.start + n.length, False, n) for n in notes]
        ordered = sorted(changes, key=lambda change: (change[0], change[1], change[2]))
        return track(number, ((start * _SIXTEENTH, key(note, pressed)) for start, pressed, note in ordered))

    above, below = piece.metre
    quarter = round(4 * piece.sixteenth * 1_000_000)  # microseconds
    written = midi.MidiFile()
    written.format, written.ticksPerQuarterNote = 1, TICKS
    written.tracks = [
        track(0, [
            (0, meta(midi.MetaEvents.SET_TEMPO, quarter.to_bytes(3, "big"))),
            (0, meta(midi.MetaEvents.TIME_SIGNATURE, bytes([above, below.bit_length() - 1, 24, 8]))),
        ]),
        voice(1, [note for note in piece.notes if note.melody]),
        voice(2, [note for note in piece.notes if not note.melody]),
    ]  # fmt: skip
    content: bytes = written.writestr()
    return content
