"""The DFK label tables: four classes, or five, with every published spelling.

Training targets, checks, decoding and metrics all resolve labels here, so they cannot drift apart.
The aliases are the union of the spellings that published DFK loaders and evaluators map, each to the class
they give."""

from __future__ import annotations

from dfkdata.schemas._labels import LabelSet

_HATE = {"ujaran_kebencian": "ujaran kebencian", "disinformasi_dan_ujaran_kebencian": "ujaran kebencian"}
_NOT_DFK = ("non-dfk", "non_dfk", "nondfk", "non dfk", "bukan_dfk", "bukan dfk")

#: Four classes: facts and posts that are no violation are both "netral".
DFK = LabelSet(
    ("netral", "disinformasi", "fitnah", "ujaran kebencian"),
    {"fakta": "netral", **dict.fromkeys(_NOT_DFK, "netral"), **_HATE},
)

#: Five classes: facts and other posts without violation stay apart.
DFK_RAW = LabelSet(
    ("fakta", "non_dfk", "disinformasi", "fitnah", "ujaran kebencian"),
    {**{name: "non_dfk" for name in _NOT_DFK if name != "non_dfk"}, **_HATE},
)
