"""What both halves of the demo share: quiet libraries, and a driver over the real definitions."""

import atexit
import gc
import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ct_assets.lib.driver import Driver, Run


def quiet() -> None:
    """Keep libraries from talking over the progress display, and from sending anything home."""
    # Failed runs are reported by the demo itself.
    logging.disable(logging.ERROR)
    # Libraries set filters of their own when they are imported, so a filter set here would not last.
    warnings.showwarning = lambda *_args, **_kwargs: None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("FEAST_USAGE", "False")


def be_a_child() -> None:
    """Prepare a process that works for the demo: quiet, and gone when the demo is, even if that was killed."""
    quiet()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def load_driver(home: Path, state: Path, sensors: Collection[str], on_run: "Callable[[Run], None]") -> "Driver":
    """A driver for some of the sensors, with its cursors in `state`, apart from those of the other half."""
    from ct_assets.definitions import defs
    from ct_assets.lib.driver import Driver
    from ct_assets.lib.instance import open_instance

    return Driver(defs(), open_instance(home), state, on_run, sensors)


def settle_memory() -> None:
    """Take what is loaded by now out of the garbage collector's rounds, which otherwise visit it all day long."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    gc.set_threshold(50_000, 20, 50)
