"""What may stand where a header field's value does."""

import pytest

from xsk_engine.layers import LAYERS, integer
from xsk_engine.values import Range, parse_values


def test_a_range_of_mac_addresses_with_hyphens():
    mac = LAYERS["eth"].find("dst").parse
    assert parse_values("02-00-00-00-00-01-02-00-00-00-00-09/2", mac) == Range(
        0x020000000001, 0x020000000009, 2
    )


def test_hyphens_without_end_are_refused_at_once():
    with pytest.raises(ValueError, match="is not a whole number"):
        parse_values("9-" * 10**6, integer)
