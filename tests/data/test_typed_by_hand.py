"""Numbers that a person typed are what they look like, or are refused."""

import re

import pytest

from fedkd.data.typed_by_hand import yaml_of
from fedkd.knowledge import BadInput


@pytest.mark.parametrize(
    "said", ["050", "-012", "1:30", "20_000", "0x1F", "0b11", "0_7", "1:30.5", "1_0.5", "00.5"]
)
def test_a_number_that_yaml_reads_as_another_is_refused(said: str) -> None:
    """050 would be 40, and 1:30 be 90: half as many, or as many again."""
    for typed in (f"a: 1\nb: {said}\n", f"a: 1\nb: [{said}]\n", f"a: 1\n{said}: b\n"):
        with pytest.raises(BadInput, match=re.escape(f"number {said} in line 2 of site.yaml")):
            yaml_of(typed.encode(), "site.yaml")
    assert yaml_of(f'b: "{said}"\n'.encode(), "site.yaml") == {"b": said}


@pytest.mark.parametrize(
    ("said", "meant"),
    [("0", 0), ("50", 50), ("-7", -7), ("+3", 3), ("0.5", 0.5), ("-0.25", -0.25), ("1.0e+3", 1e3)],
)
def test_every_other_number_is_read(said: str, meant: float) -> None:
    assert yaml_of(f"b: {said}\n".encode(), "site.yaml") == {"b": meant}
