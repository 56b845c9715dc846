"""Parquet files that were read already: tables from bytes."""

import pandas as pd
import pyarrow as pa


def read_parquet(content: bytes) -> pd.DataFrame:
    """The table in a parquet file's content. Raises what pyarrow does for anything else.

    In the caller's thread alone, and not by way of a file object of Python's: a thread of Arrow's may hold on to that
    for a moment after the reading, and asks for Python's lock to let go. Where Python ends at that moment the process
    aborts, or hangs (apache/arrow issues 34314 and 50482).
    """
    return pd.read_parquet(pa.BufferReader(content), use_threads=False, pre_buffer=False)
