"""The Dagster instance of a home: the checkout's settings, with everything stored under `$CT_HOME`."""

from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.instance.ref import InstanceRef

from ct_assets.lake.paths import write_atomically
from ct_assets.lib.provenance import CHECKOUT


def instance_settings(home: Path) -> dict[str, Any]:
    """The settings of the checkout's `dagster.yaml`, with all storage under `home`."""
    settings: dict[str, Any] = yaml.safe_load((CHECKOUT / "dagster.yaml").read_text())
    for section in settings.values():
        if "base_dir" in section.get("config", {}):
            within = Path(section["config"]["base_dir"]).relative_to(".ct")
            section["config"] = {"base_dir": str(home / within)}
    return settings


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance that the checkout's `dagster.yaml` describes, with its storage under `home`.

    Standard output is not captured: that forks four processes a run, which costs more than a small run does.
    """
    settings = instance_settings(home)
    storage = {name: section for name, section in settings.items() if name.endswith("_storage")}
    quiet = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    return dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(str(CHECKOUT), overrides={**storage, "compute_logs": quiet})
    )


def write_dagster_home(home: Path) -> Path:
    """Put the settings where `DAGSTER_HOME` may point; return that folder."""
    folder = home / "dagster"
    write_atomically(folder / "dagster.yaml", yaml.safe_dump(instance_settings(home)).encode())
    return folder
