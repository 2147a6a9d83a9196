"""A process that has imported everything and forks children that drive days, so that a restart costs no import.

It reads one JSON object a line, `{"home": ..., "days": path of pickled waves, "outcome": path, "dies_at": n or null}`,
and answers each with the child's process number. A child that does all its work writes `done` or its error to
`outcome`; with `dies_at`, the system kills it when it is about to write for the n-th time.
"""

import itertools
import json
import logging
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

import feast
import matplotlib.pyplot
import mlflow.artifacts
import mlflow.store.tracking.sqlalchemy_store
import sklearn.ensemble
import skops.io
from small_location import defs
from sqlalchemy import Engine, event

from ct_assets.feeds import feed_wave
from ct_assets.lib import report
from ct_assets.lib.driver import Driver
from ct_assets.lib.instance import open_instance
from feature_repo import repo

IMPORTED = (feast, matplotlib.pyplot, mlflow, skops, sklearn, report, repo)


def drive(home: Path, days: list[list[list]]) -> None:
    """Feed days, each wave after the one before was dealt with; what arrived already is passed by."""
    os.environ["CT_HOME"] = str(home)
    driver = Driver(defs, open_instance(home), home / "driver")
    driver.settle()
    for waves in days:
        for wave in waves:
            feed_wave(wave, str(home))
            driver.settle()
        driver.save()


def die_at(write: int) -> None:
    """Have this process killed in front of one of its writes: a sync, a rename, a link or a commit."""
    left = itertools.count(write, -1)

    def before(call: Callable) -> Callable:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if next(left) <= 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    os.fsync, os.link, Path.replace = before(os.fsync), before(os.link), before(Path.replace)
    event.listen(Engine, "commit", before(lambda connection: None))


def live(task: dict[str, Any]) -> None:
    """What a child does."""
    if task["dies_at"]:
        die_at(task["dies_at"])
    try:
        drive(Path(task["home"]), pickle.loads(Path(task["days"]).read_bytes()))
        outcome = "done"
    except BaseException:
        outcome = traceback.format_exc()
    Path(task["outcome"]).write_text(outcome)


def main() -> None:
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            live(json.loads(line))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
