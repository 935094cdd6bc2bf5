"""Which httpx this is for: 0.25 up to and including 0.28, the versions its transports were tried with.

The interface that transports are written against may change with each 0.x release, so another one is refused
when the package is imported, and not in the middle of a request. ``httpx2`` and bare ``httpcore`` have other
interfaces and are not supported.
"""

from __future__ import annotations

import re

import httpx

OLDEST = (0, 25)
NEWEST = (0, 28)


def require_httpx(version: str) -> None:
    """Raises ``ImportError`` for a version whose transports are another interface."""
    found = re.match(r"(\d+)\.(\d+)(?:\.|$)", version)
    if found is None or not OLDEST <= (int(found.group(1)), int(found.group(2))) <= NEWEST:
        raise ImportError(f"assay_client needs httpx 0.25 to 0.28, this is {version}")


require_httpx(httpx.__version__)
