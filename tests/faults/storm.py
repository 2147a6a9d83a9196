"""`kill -9` of the real daemon's processes at random moments, while days land."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from real_daemon import MODEL, Daemon
from small_days import day_of

from ct_assets.feeds import Delivery, feed_wave

WEIGHTS = {"run worker": 8, "code server": 1, "daemon": 1}
LONGEST_CALM = 12.0
"""Seconds between two kills at most: about what a run takes with the start of its process."""


@dataclass
class Storm:
    """Kills while the loop goes through its days.

    Attributes:
        daemon: Whose processes are killed.
        kills: How many.
        random: Chooses when and what.
        expected: Kind and time of each decision about the model in an undisturbed loop.
        killed: How many of each kind were killed so far.
    """

    daemon: Daemon
    kills: int
    random: random.Random
    expected: list[tuple[str, str]]
    killed: Counter[str] = field(default_factory=Counter)

    def land(self, number: int, wave: list[Delivery], share: float, within: float) -> None:
        """Land the files of a day, and kill until `share` of all kills is done and the day has been worked off."""
        feed_wave(wave, str(self.daemon.home))
        deadline = time.monotonic() + within
        while not self.rests(number):
            assert time.monotonic() < deadline, f"{day_of(number)} unfinished: {self.daemon.story()}"
            if self.killed.total() < self.kills * share:
                self.strike()
            else:
                time.sleep(0.5)

    def strike(self) -> None:
        """Wait for a random moment, and kill one process."""
        time.sleep(self.random.uniform(0.0, LONGEST_CALM) ** 2 / LONGEST_CALM)
        living = self.daemon.processes()
        if not any(process.kind == "run worker" for process in living):
            return
        victim = self.random.choices(living, [WEIGHTS[process.kind] for process in living])[0]
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
            self.killed[victim.kind] += 1
        if victim.pid == self.daemon.process.pid:
            self.daemon.restart()

    def rests(self, number: int) -> bool:
        """Whether all that the day brings about was decided, nothing waits to be made, and nothing is under way."""
        landed = [p for p in (self.daemon.home / "landing").rglob("*") if p.is_file()]
        end = day_of(number + 1)
        missing = Counter((kind, as_of) for kind, as_of in self.expected if as_of[:10] <= end)
        missing -= Counter((record.kind, record.as_of) for record in self.daemon.ledger.records(model=MODEL))
        return not landed and not missing and self.daemon.rests() and self.daemon.waits_for_nothing()
