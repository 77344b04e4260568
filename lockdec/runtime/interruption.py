"""Stopping when asked to: what SIGINT, SIGTERM and SIGUSR1 do while a run works.

A stage that is training ends its step and saves itself first, for at most `GRACE` seconds; any other work stops where
it is, since what is not published counts for nothing. The process then ends with 128 + the signal's number, as a shell
reports a process that a signal ended (130, 143, 138), and the same command goes on from there. A second Ctrl-C does
not wait for the step.

Lightning's own handlers are kept from acting: on SLURM they would write a checkpoint of another kind, requeue the job
themselves and let the process end with status 0. Where somebody has set a handler before (submitit does), it stays.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE = 4.0  # seconds for the step that a signal meets; schedulers commonly send SIGKILL 30 s after SIGTERM
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)

_asked: signal.Signals | None = None
_patient = False
_kept: dict[signal.Signals, Any] = {}  # the handlers at the start of a `patient` block


class InterruptedRunError(BaseException):
    """A signal has ended the run. No Exception, so that nothing which goes on after errors goes on after this.

    Attributes:
        status: what the process is to end with.
        agreed: whether all ranks of a training stop at the same step.
    """

    def __init__(self, number: int, agreed: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status, self.agreed = 128 + number, agreed


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block the signals raise InterruptedRunError. Outside the main thread they are left as they are."""
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in SIGNALS if signal.getsignal(number) in UNTOUCHED]
    before = {number: signal.signal(number, _stop) for number in ours}
    _asked = None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = None


@contextmanager
def patient() -> Iterator[None]:
    """Within this block a signal is only noted, for `GRACE` seconds: the work looks at `asked_to_stop` and ends."""
    global _patient
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    _kept.update({number: signal.getsignal(number) for number in SIGNALS})
    _patient = True
    try:
        yield
    finally:
        _patient = False
        _kept.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _asked is not None:
        raise InterruptedRunError(_asked)


def take_signals_back() -> None:
    """Undo what somebody has made of the signals within a `patient` block.

    Lightning's own handler ends training between two of its steps, whether or not a checkpoint has been saved since the
    signal came; and where ranks train together, it waits for the others, which nobody has asked to stop.
    """
    for number, handler in _kept.items():
        signal.signal(number, handler)


def asked_to_stop() -> bool:
    """Whether a signal has come in a `patient` block."""
    return _asked is not None


def stop_now(agreed: bool = False) -> None:
    """Raise InterruptedRunError for the signal that has come, to this process or to another of the same training."""
    raise InterruptedRunError(_asked or signal.SIGTERM, agreed)


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked
    first, _asked = _asked is None, _asked or signal.Signals(number)
    if first and _patient:
        signal.setitimer(signal.ITIMER_REAL, GRACE)
    elif first or number in (signal.SIGALRM, signal.SIGINT):
        raise InterruptedRunError(_asked)
