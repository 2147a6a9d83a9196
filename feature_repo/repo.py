"""What Feast's own commands see: the entities, views and services of every model.

`feast apply` deletes what it does not find, so all of them have to be here; it looks at the names of this module. The
other files of this folder are in `.feastignore`, or it would find their objects twice.
"""

import sys
from importlib import import_module
from pathlib import Path

# Feast runs in this folder, or in another one; the models' files are imported from the checkout.
sys.path.insert(0, str(Path(__file__).parents[1]))

OBJECTS = import_module("ct_assets.resources.feast").definitions()
globals().update({f"object_{number}": each for number, each in enumerate(OBJECTS)})
