"""Results of a sweep: a folder of Parquet files, each written whole when some points are done."""

import fcntl
import os
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from splatforge.scenes.atomic_file import atomic_file, check_writable
from splatforge.scenes.scene import SceneError

__all__ = ["COLUMNS", "Results"]

#: Columns of every result; those of parameters, by their dotted names, come behind.
COLUMNS = pa.schema([
    ("key", pa.string()), ("status", pa.string()), ("error", pa.string()),
    ("design", pa.string()), ("preset", pa.string()), ("turned", pa.string()),
    ("scene", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("frames", pa.int32()),
    ("memory", pa.string()), ("node_nm", pa.float64()), ("clock_hz", pa.float64()),
    ("cycles", pa.int64()), ("time_s", pa.float64()),
    ("energy_j", pa.float64()), ("energy_low_j", pa.float64()), ("energy_high_j", pa.float64()),
    ("area_mm2", pa.float64()), ("area_low_mm2", pa.float64()), ("area_high_mm2", pa.float64()),
    ("psnr_db", pa.float64()), ("bytes_read", pa.int64()), ("bytes_written", pa.int64()),
    ("lane_um2", pa.float64()), ("workload", pa.string()), ("workload_made", pa.bool_()),
    ("spent_s", pa.float64()), ("counters", pa.map_(pa.string(), pa.int64())),
    ("program", pa.string()),
])

_T = TypeVar("_T")


class Results:
    """The folder of a sweep's results, for one sweep at a time.

    Parameters
    ----------
    folder : path-like
        Made as needed. Whatever reads a folder of Parquet files reads it.

    Raises
    ------
    SceneError
        The folder cannot be written to, another sweep writes to it, or a file in it cannot be read.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock: IO[bytes] | None = None
        self._schema: pa.Schema | None = None
        check_writable(self.folder / "part.parquet")

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("wb")
        except OSError as error:
            raise SceneError(f"{self.folder}: cannot be written ({error.strerror}): check the "
                             "folder and its permissions") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise SceneError(f"{self.folder}: another sweep writes to it: wait for its end, or "
                             "choose another folder with -o") from None
        # What a kill left of a file that was being written.
        for path in self.folder.glob(".part-*.part"):
            path.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _file(self, path: Path, look: Callable[[pq.ParquetFile], _T]) -> _T:
        try:
            # One file, whatever its folder is called: no columns come of its path.
            with pq.ParquetFile(path) as file:
                return look(file)
        except (OSError, pa.ArrowException) as error:
            line = str(error).splitlines()[0]
            raise SceneError(f"{path}: cannot be read ({line}): delete it, and its points are "
                             "computed anew") from None

    def _tables(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        return [self._file(path, lambda file: file.read(columns))
                for path in sorted(self.folder.glob("part-*.parquet"))]

    def keys(self) -> set[str]:
        """Keys of the points that are finished."""
        return {key for table in self._tables(["key"]) for key in table["key"].to_pylist()}

    def append(self, rows: Sequence[Mapping[str, Any]],
               parameters: Mapping[str, Sequence[Any]] | None = None) -> None:
        """Write results of points to a file of their own, all of them or none.

        Parameters
        ----------
        rows : sequence of Mapping
            By the names of :data:`COLUMNS`, and of parameters.
        parameters : Mapping, optional
            Values that each parameter has in the whole sweep; those of the rows by default. All
            files have the same columns: those of an earlier sweep get what it did not turn, empty.

        Raises
        ------
        SceneError
            The file cannot be written.
        """
        if parameters is None:
            names = dict.fromkeys(name for row in rows for name in row)
            parameters = {name: [row[name] for row in rows if row.get(name) is not None]
                          for name in names}
        # A memory and a node that are turned are in a column already.
        kinds = {name: _kind(values) for name, values in parameters.items()
                 if name not in COLUMNS.names}
        schema = self._schema
        if schema is None or not kinds.keys() <= set(schema.names):
            schema = self._schema = self._widened(kinds)
        table = _table(rows, schema)
        number = sum(1 for _ in self.folder.glob("part-*.parquet"))
        path = self.folder / f"part-{number:06d}-{uuid.uuid4().hex[:8]}.parquet"
        with atomic_file(path) as file:
            pq.write_table(table, file)

    def _widened(self, kinds: Mapping[str, pa.DataType]) -> pa.Schema:
        """Columns of these parameters and of all files; a file that has others is written anew.

        What reads a folder takes the columns of its first file to be those of all.
        """
        kinds = dict(kinds)
        paths = sorted(self.folder.glob("part-*.parquet"))
        schemas = [self._file(path, lambda file: file.schema_arrow) for path in paths]
        for column in (column for each in schemas for column in each
                       if column.name not in COLUMNS.names):
            kinds[column.name] = _common(kinds.get(column.name, column.type), column.type)
        schema = pa.schema([*COLUMNS, *kinds.items()])
        for path, had in zip(paths, schemas, strict=True):
            if _types(had) != _types(schema):
                rows = self._file(path, lambda file: file.read()).to_pylist()
                with atomic_file(path) as file:
                    pq.write_table(_table(rows, schema), file)
        return schema

    def rows(self, keys: Collection[str] | None = None) -> list[dict[str, Any]]:
        """Results as plain rows, of some keys or of all, each key once."""
        found: dict[str, dict[str, Any]] = {}
        for table in self._tables():
            for row in table.to_pylist():
                if keys is None or row["key"] in keys:
                    row["counters"] = dict(row["counters"] or ())
                    found[row["key"]] = row
        return list(found.values())


def _kind(values: Sequence[Any]) -> pa.DataType:
    """Column of a parameter's values."""
    for kind, made in ((bool, pa.bool_()), (int, pa.int64()), ((int, float), pa.float64())):
        if values and all(isinstance(value, kind) for value in values) and (
                kind is bool or not any(isinstance(value, bool) for value in values)):
            return made
    return pa.string()


def _types(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    return sorted(((column.name, column.type) for column in schema), key=lambda pair: pair[0])


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Column that holds what both hold."""
    if one == other:
        return one
    return pa.float64() if {one, other} == {pa.int64(), pa.float64()} else pa.string()


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows by the names of columns; what is missing is empty, and text where a column is."""
    kinds = {column.name: column.type for column in schema}

    def held(value: Any, kind: pa.DataType) -> Any:
        return value if value is None or kind != pa.string() else str(value)

    return pa.Table.from_pylist(
        [{name: held(row.get(name), kind) for name, kind in kinds.items()} for row in rows],
        schema=schema)
