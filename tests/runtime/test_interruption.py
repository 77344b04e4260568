"""Signals during work: raised at once, or in a patient block recorded until the work has ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from lockdec.runtime import interruption
from lockdec.runtime.interruption import SIGNALS, InterruptedRunError, asked_to_stop, patient, stoppable


@pytest.fixture(autouse=True)
def usual_ctrl_c() -> Iterator[None]:
    """Whoever started the tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_work_at_once_with_the_status_of_a_shell(number: signal.Signals) -> None:
    def work() -> None:
        with stoppable():
            signal.raise_signal(number)
            pytest.fail("the work went on")

    before = signal.getsignal(number)
    with pytest.raises(InterruptedRunError, match=number.name) as stop:
        work()
    assert stop.value.status == 128 + number
    assert signal.getsignal(number) is before


def test_patient_work_ends_its_step_first() -> None:
    steps = []

    def work() -> None:
        with stoppable(), patient():
            steps.append(asked_to_stop())
            signal.raise_signal(signal.SIGTERM)
            steps.append(asked_to_stop())

    with pytest.raises(InterruptedRunError):
        work()
    assert steps == [False, True]
    assert not asked_to_stop()


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    def work() -> None:
        with stoppable(), patient():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGUSR1)  # no more urgent than the first signal
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the step went on")

    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        work()


def test_a_step_is_waited_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE", 0.05)

    def work() -> None:
        with stoppable(), patient():
            signal.raise_signal(signal.SIGTERM)
            threading.Event().wait(30)
            pytest.fail("the step was waited for")

    with pytest.raises(InterruptedRunError):
        work()


def test_other_threads_leave_the_handlers_alone() -> None:
    found = []

    def work() -> None:
        with stoppable(), patient():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
