"""Which structures of the table were outlined in the cases of another data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..bundles.labels import Label
from ..names import plain, same
from .listing import Pair
from .table import IGNORE, find


class Outlines:
    """What a source says of its cases, in names of the table.

    Args:
        names: label value -> name, as the source has them; None where it names nothing, and values are the table's.
        mapping: see `table.read_mapping`.
        outlined: names that the user gives; they count for every case.
    """

    def __init__(
        self,
        table: Sequence[Label],
        names: Mapping[int, str] | None,
        mapping: Mapping[str, str | None],
        outlined: Sequence[str] | None,
    ) -> None:
        self._table, self._given = table, outlined
        self._names = {label.value: label.name for label in table} if names is None else names
        self._mapping = {plain(key): ours for key, ours in mapping.items()}
        known = {label.name for label in self._ours(self._names)}
        self._unsaid = [] if names is None else [label.name for label in table if label.name not in known]

    @property
    def notes(self) -> list[str]:
        """What is to be told of the source as a whole."""
        if self._given is not None or not self._unsaid:
            return []
        listed = ", ".join(self._unsaid)
        return [f"The source does not tell of {listed}: taken as not outlined there (--outlined says otherwise)."]

    def of(self, pair: Pair) -> Sequence[str] | None:
        """The structures that were outlined in a case, besides those that occur; None for all of the table."""
        if self._given is not None:
            return self._given
        if pair.labelled is not None:
            return [label.name for label in self._ours(pair.labelled)]
        return [label.name for label in self._ours(self._names)] if self._unsaid else None

    def _ours(self, values: Iterable[int]) -> list[Label]:
        """The labels of the table that these values of the source are."""
        found = (self._our(value) for value in values)
        return list({label.value: label for label in found if label is not None}.values())

    def _our(self, value: int) -> Label | None:
        theirs = self._names.get(value)
        wanted = next((self._mapping[key] for key in (plain(theirs or ""), str(value)) if key in self._mapping), theirs)
        return None if wanted is None or same(wanted, IGNORE) else find(self._table, wanted)
