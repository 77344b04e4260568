"""Checks types and shapes at run time in the tests; an int is a float there too, as it is for mypy."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
