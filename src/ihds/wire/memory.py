"""How the C library keeps memory for a node at work."""

from __future__ import annotations

import ctypes
import platform


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory up to 512 MiB instead of handing every large array back.

    A round's arrays come and go; fetching fresh pages for them costs more than the sums they hold.
    Only glibc has these settings (mallopt(3)); elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, 1 << 29)):
            libc.mallopt(setting, value)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
