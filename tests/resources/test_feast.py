"""What the files of a repository and of its models describe to Feast, taken together."""

import pytest

from ct_assets.lake.declaration import DeclarationError
from ct_assets.resources.feast import definitions, together
from feature_repo.lake_views import text_entity

SHOP, DESK = "models/shop/feature_views.py", "models/desk/feature_views.py"


def test_what_two_files_share_is_registered_once() -> None:
    shared, again = text_entity("customer", "Who buys"), text_entity("customer", "Who buys")
    own = text_entity("team", "Who helps")
    assert together({SHOP: [shared], DESK: [shared, again, own]}) == [shared, own]


def test_two_things_of_one_name_are_refused_with_both_files() -> None:
    shop, desk = text_entity("customer", "Who buys"), text_entity("customer", "Who asks for help")
    with pytest.raises(DeclarationError) as error:
        together({SHOP: [shop], DESK: [desk]})
    assert str(error.value).startswith(f"Entity 'customer' is described in {SHOP} and, differently, in {DESK}; ")


def test_the_shipped_descriptions_fit_together() -> None:
    names = [(type(each).__name__, each.name) for each in definitions()]
    assert len(names) == len(set(names))
    assert {("FeatureService", f"{name}_v1") for name in ("flight_delay", "repurchase", "household_power")} < set(names)
