"""FAMILY: one training layout a file.

A member writes the canonical row (the `messages` layout, see `dfkdata.rows`) as one trainer reads it, and
back:

    def row(row) -> dict         the layout's row; raises `Fault` where this layout cannot hold it
    def inverse(row) -> dict     back to the canonical row: `inverse(row(r)) == r` for every row that `row`
    accepts def check(row) -> None       the layout's own rules on a finished row; raises `Fault`

All three are pure. `id`, `images` and `meta` pass through where the layout has room for them."""
