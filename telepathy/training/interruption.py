"""What a cluster says before it kills a job, heard between two steps so that a checkpoint can be written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from telepathy.errors import TelepathyError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SLURM sends SIGTERM before it kills (time limit, preemption, scancel), and what ``--signal`` asks for before that."""


class Interruption:
    """Notices that training is to stop; use as a context around it.

    A signal in the middle of a step only leaves a mark, so that weights and optimiser stay in
    step; within `at_once` it breaks off what is being done. Outside the main thread, where Python
    takes no signals, nothing is noticed.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._now = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}
        return self

    def __exit__(self, _kind: object, _error: object, _trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        self.asked = signal.Signals(number)
        if self._now:
            self.stop()

    def stop(self) -> None:
        """End training.

        Raises:
            TelepathyError: always; it says how to go on.
        """
        raise TelepathyError(
            f"Training was stopped by {self.asked.name if self.asked else 'a signal'}: "
            "run the same command again to go on from its checkpoint."
        )

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block a signal raises immediately: nothing here changes what is learnt."""
        self._now = True
        try:
            if self.asked:
                self.stop()
            yield
        finally:
            self._now = False
