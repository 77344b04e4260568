"""Handles SIGINT, SIGTERM and SIGUSR1 during a run.

A stage that is training finishes its step and saves a checkpoint first, within at most `GRACE` seconds. All other work
stops immediately, since nothing unpublished counts. The process then exits with 128 + the number of the signal, like
a process that the signal has killed (130, 143, 138), and the same command continues from there. A second Ctrl-C does
not wait for the step.

`lockdec.training.fit` keeps Lightning's own handlers away: on SLURM they would write another kind of checkpoint,
requeue the job themselves and end the process with status 0. With several ranks they would wait, inside the handler,
for ranks that have had no signal. A handler that was set before (submitit does so) is left in place.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 4.0  # seconds to finish the current step; schedulers commonly send SIGKILL 30 s after SIGTERM
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)

_asked: signal.Signals | None = None
_patient = False


class InterruptedRunError(BaseException):
    """A signal has stopped the run. Not an Exception, so that code which continues after errors does not catch it.

    Attributes:
        status: the exit status for the process.
        agreed: whether all ranks stop training at the same step.
    """

    def __init__(self, number: int, agreed: bool = False) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status, self.agreed = 128 + number, agreed


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this block, the signals raise InterruptedRunError. Outside the main thread, nothing changes."""
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
    """Within this block, a signal is only recorded for `GRACE` seconds; the work checks `asked_to_stop` and ends."""
    global _patient
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _stop)
    _patient = True
    try:
        yield
    finally:
        _patient = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if _asked is not None:
        raise InterruptedRunError(_asked)


def asked_to_stop() -> bool:
    """Whether a signal has arrived within a `patient` block."""
    return _asked is not None


def stop_now(agreed: bool = False) -> None:
    """Raise InterruptedRunError for the signal that this process, or another rank, has received."""
    raise InterruptedRunError(_asked or signal.SIGTERM, agreed)


def _stop(number: int, frame: FrameType | None) -> None:
    global _asked
    first, _asked = _asked is None, _asked or signal.Signals(number)
    if first and _patient:
        signal.setitimer(signal.ITIMER_REAL, GRACE)
    elif first or number in (signal.SIGALRM, signal.SIGINT):
        raise InterruptedRunError(_asked)
