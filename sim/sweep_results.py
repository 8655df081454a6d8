"""Results of a sweep: a folder of Parquet files, each written whole when some points are done."""

import fcntl
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

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
])


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

    def _tables(self, columns: Sequence[str] | None = None) -> list[pa.Table]:
        tables = []
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                # One file, whatever its folder is called: no columns come of its path.
                with pq.ParquetFile(path) as file:
                    tables.append(file.read(columns))
            except (OSError, pa.ArrowException) as error:
                line = str(error).splitlines()[0]
                raise SceneError(f"{path}: cannot be read ({line}): delete it, and its points are "
                                 "computed anew") from None
        return tables

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
            Values that each parameter has in the whole sweep, so that all files have the same
            columns; those of the rows by default.

        Raises
        ------
        SceneError
            The file cannot be written.
        """
        if parameters is None:
            names = dict.fromkeys(name for row in rows for name in row)
            parameters = {
                name: [row[name] for row in rows if row.get(name) is not None]
                for name in names if name not in COLUMNS.names}
        kinds = [(name, _kind(values)) for name, values in parameters.items()]
        schema = pa.schema([*COLUMNS, *kinds])
        table = pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in rows],
                                     schema=schema)
        number = sum(1 for _ in self.folder.glob("part-*.parquet"))
        path = self.folder / f"part-{number:06d}-{uuid.uuid4().hex[:8]}.parquet"
        with atomic_file(path) as file:
            pq.write_table(table, file)

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
