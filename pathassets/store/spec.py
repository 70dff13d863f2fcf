"""TableSpec and Column: how a table is described, and a frame checked against its description.

Belongs here: the two value objects and the check. Does not belong: the tables themselves (`schema`), files.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from pathassets.errors import Reason, StoreError

TEXT = pl.String()
INT = pl.Int64()
FLOAT = pl.Float64()
FLOAT32 = pl.Float32()
BOOL = pl.Boolean()
VECTOR = pl.List(pl.Float32())
FLOATS = pl.List(pl.Float64())
TEXTS = pl.List(pl.String())
SIZES = pl.List(pl.List(pl.Int64()))
TIME = pl.Datetime("us")

_SQL_TYPES: dict[pl.DataType, str] = {
    TEXT: "VARCHAR",
    INT: "BIGINT",
    FLOAT: "DOUBLE",
    FLOAT32: "FLOAT",
    BOOL: "BOOLEAN",
    VECTOR: "FLOAT[]",
    FLOATS: "DOUBLE[]",
    TEXTS: "VARCHAR[]",
    SIZES: "BIGINT[][]",
    TIME: "TIMESTAMP",
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its name; sizes carry their unit in it.
        dtype: Its polars type.
        description: What it says, one sentence without a full stop.
        unit: Physical unit, where it has one.
        null: Whether it may be empty.
        optional: Whether a frame may leave it out; it is then empty. Implies `null`.
        choices: The only values it may have.
    """

    name: str
    dtype: pl.DataType
    description: str
    unit: str = ""
    null: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()

    @property
    def sql_type(self) -> str:
        """Its type in DuckDB."""
        return _SQL_TYPES[self.dtype]

    @property
    def nullable(self) -> bool:
        """Whether it may be empty."""
        return self.null or self.optional

    @property
    def comment(self) -> str:
        """Description, unit and choices in one line: the comment in SQL and in Dagster."""
        unit = f" [{self.unit}]" if self.unit else ""
        choices = f" (one of {', '.join(self.choices)})" if self.choices else ""
        return f"{self.description}{unit}{choices}"


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: Its name in SQL and on disk.
        description: What a row is.
        key: The columns that together name a row.
        columns: All columns, in order.
        study: One file for the whole study, not one per slide.
        open: Takes further columns (the manifest's) beyond `columns`.
    """

    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    study: bool = False
    open: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def derived(self) -> bool:
        """Whether its rows come from embeddings and are only true beside them."""
        return "embeddings_digest" in self.names

    @property
    def polars_schema(self) -> pl.Schema:
        """The columns' polars types."""
        return pl.Schema({column.name: column.dtype for column in self.columns})

    def column_schema(self) -> list[tuple[str, str, str]]:
        """Name, SQL type and comment of every column, as plain data."""
        return [(column.name, column.sql_type, column.comment) for column in self.columns]

    def empty(self) -> pl.DataFrame:
        """A frame without rows."""
        return pl.DataFrame(schema=self.polars_schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with this table's columns in this table's order and types; an open table's extras come last.

        Raises:
            StoreError: `internal`: a column is missing, unknown, of another type, empty or outside its choices, or two
                rows have one key. It names the table and the column.
        """
        extras = [name for name in frame.columns if name not in self.names]
        if extras and not self.open:
            raise self._wrong(f"has no column {', '.join(extras)}")
        self._check_distinct(extras)
        full = frame.select([*(self._cast(frame, column) for column in self.columns), *extras])
        for column in self.columns:
            self._check_values(full, column)
        if full.select(pl.struct(self.key).is_duplicated().any()).item():
            raise self._wrong(f"would hold two rows with one key ({', '.join(self.key)})")
        return full

    def _cast(self, frame: pl.DataFrame, column: Column) -> pl.Series:
        if column.name not in frame.columns:
            if not column.optional:
                raise self._wrong(f"misses its column {column.name}")
            return pl.Series(column.name, [None] * frame.height, dtype=column.dtype)
        try:
            return frame[column.name].cast(column.dtype)
        except pl.exceptions.PolarsError as error:
            raise self._wrong(f"cannot take {column.name} as {column.sql_type}: {error}") from error

    def _check_values(self, frame: pl.DataFrame, column: Column) -> None:
        values = frame[column.name]
        if not column.nullable and values.null_count():
            raise self._wrong(f"has {values.null_count()} rows without {column.name}")
        if column.choices:
            strange = set(values.drop_nulls().unique()) - set(column.choices)
            if strange:
                raise self._wrong(f"cannot take {column.name} = {sorted(strange)}, only {list(column.choices)}")

    def _check_distinct(self, extras: list[str]) -> None:
        """SQL does not tell upper from lower case: `Patient` and `patient` cannot be two columns."""
        seen = {name.lower() for name in self.names}
        for name in extras:
            if name.lower() in seen:
                raise StoreError(
                    f"the table {self.name} cannot have a second column {name!r}",
                    reason=Reason.MANIFEST_INVALID,
                    remedy="Rename that column in slides.csv; upper and lower case are the same here.",
                )
            seen.add(name.lower())

    def _wrong(self, what: str) -> StoreError:
        return StoreError(f"the table {self.name} {what}", reason=Reason.INTERNAL)
