"""What the features describe."""

import polars as pl

from lockstep import Entity

HOUSEHOLD = Entity("household", {"household_id": pl.Int64}, "A household with a loyalty card.")
PRODUCT = Entity("product", {"product_id": pl.Int64}, "A product as numbered by the retailer.")
