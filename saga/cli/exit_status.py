"""The exit statuses of the command."""

from __future__ import annotations

OK = 0
SAGA_FAILED = 1
USAGE = 2
