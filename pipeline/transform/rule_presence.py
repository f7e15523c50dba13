"""The rules between columns: which values are there, for a whole chunk, and what Cerberus says of that.

``required``, ``nullable``, ``dependencies`` and ``excludes`` look at nothing but whether there is a value. ``States`` finds the rows in
which one may be broken, from the validity of whole columns; ``PresenceJudge`` shows Cerberus each distinct pattern of
what is there once. A value that typing has refused is there, so that no other column is told to miss it, and its own column is
not judged again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.catalog.meta_schema import ROW_RULES
from pipeline.errors import CatalogError
from pipeline.transform.check_with import record_validator
from pipeline.transform.rule_judge import MOST_REMEMBERED, Verdict, judge, without
from pipeline.transform.rule_kernels import Mask

#: What is at a column's place in a row: nothing, a value, a NULL where none may stand, what typing has refused.
MISSING, PRESENT, NULL, REFUSED = range(4)
_SHOWN: Final = {PRESENT: True, NULL: None, REFUSED: None}


class PresenceJudge:
    """Cerberus' verdict by the rules between columns: ``required``, ``nullable``, ``dependencies``, ``excludes``.

    Args:
        schema: those rules of the columns that have some, and an entry of every column that those look at.
    """

    def __init__(self, schema: Mapping[str, Mapping[str, Any]]) -> None:
        self.names = tuple(schema)
        self._validator = record_validator(schema)
        self._known: dict[bytes, Verdict] = {}

    def verdict(self, states: bytes) -> Verdict:
        """What Cerberus says of a row in which the columns are in these states, one a column in the order of ``names``.

        What typing has refused is there, so that no other column is told to miss it, and is not judged again.
        """
        known = self._known.get(states)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            document = {name: _SHOWN[state] for name, state in zip(self.names, states, strict=True) if state != MISSING}
            refused = [name for name, state in zip(self.names, states, strict=True) if state == REFUSED]
            known = self._known[states] = without(judge(self._validator, document), refused)
        return known


def presence_schema(schema: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rules between columns alone, of the columns that have some and of those that they look at.

    Raises:
        CatalogError: a rule looks at a column that is not there.
    """
    rules: dict[str, dict[str, Any]] = {}
    for name, all_rules in schema.items():
        lists = {rule: all_rules[rule] for rule in ROW_RULES if isinstance(all_rules.get(rule), list)}
        mine = {**({"required": True} if all_rules.get("required") else {}), **lists}
        if mine or not all_rules["nullable"]:
            rules[name] = {"nullable": all_rules["nullable"], **mine}
    for name, mine in list(rules.items()):
        for other in (*mine.get("dependencies", ()), *mine.get("excludes", ())):
            if other not in schema:
                raise CatalogError(f"column {name}: a rule names {other!r}", "columns of the table", "correct the schema file")
            rules.setdefault(other, {"nullable": schema[other]["nullable"]})
    return rules


class States:
    """Which of some columns have a value, for all rows of a chunk; a column that is full costs nothing."""

    def __init__(
        self,
        rows: pa.Table,
        names: Sequence[str],
        schema: Mapping[str, Mapping[str, Any]],
        absent: Collection[str],
        refused: Mapping[int, Collection[str]],
    ) -> None:
        self.names = names
        self.rows = rows.num_rows
        self.schema = schema
        self.absent = absent
        self.refused = {name: [row for row, columns in refused.items() if name in columns] for name in names} if refused else {}
        columns = {name: rows.column(name) for name in names}
        #: Columns without a NULL have no mask.
        self.valid = {name: column.is_valid().to_numpy() for name, column in columns.items() if column.null_count}

    def _stands(self, name: str) -> Mask | bool:
        """In which rows a column stands in Cerberus' document: True: in all."""
        if name not in self.valid or (not self.schema[name]["nullable"] and name not in self.absent):
            return True
        mask: Mask = self.valid[name]
        if at := self.refused.get(name):
            mask = mask.copy()
            mask[at] = True
        return mask

    def suspects(self) -> Mask:
        """The rows in which a rule between columns may be broken."""
        broken = np.zeros(self.rows, dtype=np.bool_)
        for name in self.names:
            rules, stands = self.schema[name], self._stands(name)
            if not rules["nullable"] and name not in self.absent and name in self.valid:
                broken |= ~self.valid[name]
            if rules.get("required"):
                broken |= np.logical_not(stands)
            for other in rules["dependencies"] if isinstance(rules.get("dependencies"), list) else ():
                broken |= np.logical_and(stands, np.logical_not(self._stands(other)))
            for other in rules.get("excludes", ()):
                broken |= np.logical_and(stands, self._stands(other))
        return broken

    def patterns(self, at: npt.NDArray[np.int64]) -> list[bytes]:
        """The states of the columns in some rows, one byte a column."""
        states = np.full((len(at), len(self.names)), PRESENT, dtype=np.uint8)
        for number, name in enumerate(self.names):
            if name in self.valid:
                nothing = NULL if not self.schema[name]["nullable"] and name not in self.absent else MISSING
                states[~self.valid[name][at], number] = nothing
            if self.refused.get(name):
                states[np.isin(at, self.refused[name]), number] = REFUSED
        return [row.tobytes() for row in states]
