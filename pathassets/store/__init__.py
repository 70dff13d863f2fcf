"""Where things live: every path of the store, and how it is read and written.

Belongs here: keys and paths (`layout`), the operations that touch them (`root`; on a disk: `local_root`, in a bucket:
`object_root` with its locks, `leases`), table schemas (`spec`, `schema`,
`contract`), tables on disk (`tables`), arrays (`arrays`, `derived`), the SQL snapshot (`results`, `ingest`, `query`),
and the check of it all (`verify`). Does not belong: what is computed, dagster, torch, slides, encoders.

Nothing here imports DuckDB, Zarr or AnnData before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathassets.store.root import Root, open_root
    from pathassets.store.tables import Tables

__all__ = ["Root", "Tables", "open_root"]

_HOMES = {"Root": "pathassets.store.root", "Tables": "pathassets.store.tables", "open_root": "pathassets.store.root"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
