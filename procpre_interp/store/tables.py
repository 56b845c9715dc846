"""Tables of experiments over many runs: one parquet file each, whose footer holds their metadata and its checksum."""

import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from procpre_interp.core import atomic_files, checksums, regular_files, schema
from procpre_interp.core.environment import now
from procpre_interp.core.html import fields_html, table_html
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import parse_json
from procpre_interp.store.cells import check_columns, with_run_lists
from procpre_interp.store.parquet import read_parquet
from procpre_interp.store.run import UnknownRun

_FOOTER = b"procpre_interp"
"""Entry of a table's footer: JSON with `checksum` and `metadata`."""
_DAMAGE = (OSError, ValueError, LookupError, TypeError, pa.ArrowException)
"""What reading a damaged table may raise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A stored table of an experiment and what is to be known about it."""

    name: str
    frame: pd.DataFrame
    metadata: dict[str, Any]

    def _repr_html_(self) -> str:
        """What it is about, its size and its first rows, as a notebook shows them."""
        seen = {name: self.metadata.get(name) for name in ("title", "claim", "verdict", "task", "protocol", "created")}
        size = f"{len(self.frame):,} rows, {len(self.frame.columns)} columns"
        rows = self.frame.head(5).itertuples(index=False, name=None)
        return fields_html(f"Table {self.name}", seen | {"size": size}) + table_html(self.frame.columns, rows)


def write_table(path: Path, frame: pd.DataFrame, metadata: Mapping[str, Any]) -> None:
    """Write a table and its metadata, among them when it was created: the file is whole or absent."""
    with atomic_files.atomic_write(path) as temporary:
        temporary.write_bytes(_content(frame, metadata))


def _content(frame: pd.DataFrame, metadata: Mapping[str, Any]) -> bytes:
    footer = {"checksum": checksums.CHECKSUM_PLACE, "metadata": atomic_files.plain({"created": now(), **metadata})}
    frame = with_run_lists(frame)
    check_columns(frame)
    arrow, buffer = pa.Table.from_pandas(frame, preserve_index=False), io.BytesIO()
    with pq.ParquetWriter(buffer, arrow.schema) as writer:
        writer.write_table(arrow)
        writer.add_key_value_metadata({_FOOTER: json.dumps(footer, allow_nan=False)})
    return checksums.with_checksum(buffer.getvalue())


def read_table_file(path: Path) -> bytes:
    """A table's file as it is to be copied; one of an older version, whose metadata are a file beside it, as one.

    Raises `OSError` for a link, a pipe, or whatever else is no file.
    """
    content = regular_files.read_regular(path)
    with suppress(*_DAMAGE):  # as its reader will say
        if _footer_metadata(content) is None:
            return _content(*_read(path))
    return content


def date_as_created(path: Path) -> None:
    """Give the file of a table the time at which the table was made, by which stores put them in order."""
    with suppress(*_DAMAGE):
        made = datetime.fromisoformat(_footer_metadata(regular_files.read_regular(path))["created"]).timestamp()
        os.utime(path, (made, made))


def read_table(path: Path) -> Table:
    """The table that `write_table` wrote. Raises `UnknownRun` where it is gone, or `ValueError` when it is damaged."""
    name = path.stem
    try:
        frame, metadata = _read(path)
        schema.check_metadata(metadata)
        frame = with_run_lists(frame)
        check_columns(frame)
    except _DAMAGE as problem:
        if not os.path.lexists(path):
            raise UnknownRun(f"table {name} was deleted while it was read") from None
        raise ValueError(f"table {name} is damaged: {one_line(problem)}. Repeat the command that wrote it.") from None
    return Table(name=name, frame=frame, metadata=metadata)


def _footer_metadata(content: bytes) -> Any:
    """The metadata in a table's file, checksum verified. None in one of an older version."""
    footer = (pq.read_metadata(pa.BufferReader(content)).metadata or {}).get(_FOOTER)
    if footer is None:
        return None
    about = parse_json(footer)
    checksums.check_checksum(content, about["checksum"])
    return about["metadata"]


def _read(path: Path) -> tuple[pd.DataFrame, Any]:
    """A table and its metadata, checksum verified. Older versions wrote no checksum, and the metadata as JSON."""
    content = regular_files.read_regular(path)
    metadata = _footer_metadata(content)
    if metadata is None:
        metadata = parse_json(regular_files.read_regular(path.with_suffix(".json")))
    return read_parquet(content), metadata
