"""The line that shows how far a sweep is, while its cells run in this or in other processes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lockdec.sweeps.cells import Sweep

if TYPE_CHECKING:
    from rich.text import Text

COUNT_EVERY = 1.0  # seconds between two counts of the cells
PRINT_EVERY = 10.0  # least seconds between two lines in a log file


class Progress:
    """Shows how far a sweep is: one line that stays in place in a terminal, a line at each change in a log file.

    Args:
        name: of the sweep.
    """

    def __init__(self, sweep: Sweep, name: str) -> None:
        from rich.live import Live  # here, since --help needs neither

        from lockdec.console import console

        self.sweep, self.name, self._console = sweep, name, console
        self._line, self._counted_at = "", 0.0
        self._stopped = threading.Event()
        self._live = Live(get_renderable=self._text, console=console, refresh_per_second=1, transient=True)
        self._thread = threading.Thread(target=self._print_changes, daemon=True)

    def start(self) -> None:
        """Show the line until `stop`."""
        if self._console.is_terminal:
            self._live.start()
        else:
            self._thread.start()

    def stop(self) -> None:
        """Remove the line."""
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._stopped.set()
            self._thread.join()

    def _text(self) -> Text:
        from rich.text import Text

        # The progress bars of a running cell refresh the whole display more often than the cells need counting.
        if time.monotonic() - self._counted_at > COUNT_EVERY:
            self._line, self._counted_at = self.sweep.standing().line(self.name), time.monotonic()
        return Text(self._line, style="bold", overflow="ellipsis", no_wrap=True)

    def _print_changes(self) -> None:
        from lockdec.console import printable

        printed_at, printed = 0.0, (-1, -1)
        while not self._stopped.is_set():
            standing = self.sweep.standing()
            ended = (standing.done, standing.failed + standing.pruned)
            if ended != printed and (printed_at == 0 or time.monotonic() - printed_at >= PRINT_EVERY):
                self._console.print(printable(standing.line(self.name)), soft_wrap=True)
                printed_at, printed = time.monotonic(), ended
            self._stopped.wait(COUNT_EVERY)
