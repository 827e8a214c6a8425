"""Starts lives fast: a process that has everything imported and no thread forks one for each line that it reads.

``python -m tests.crash.zygote`` reads requests as lines of JSON. It answers each with the process's number, then with
``stopped`` each time the process is stopped, and in the end with its exit status (negative: the signal) and its report.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import msgspec

from tests.crash.child import Report, Request, live

LIFE_SECONDS = 60
"""After so long a life is ended by SIGALRM: it hangs."""


def _report_file(request: Request, process: int) -> Path:
    return Path(request.directory) / f"report-{process}.json"


def _live(request: Request) -> None:
    """Live, and never return."""
    status = 1
    try:
        signal.alarm(LIFE_SECONDS)
        report = asyncio.run(live(request))
        _report_file(request, os.getpid()).write_bytes(msgspec.json.encode(report))
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the forked process must not go on as the zygote
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _tell(**answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def main() -> None:
    """Answer requests until there are no more."""
    # What is there before the first fork stays shared: no collection touches it in a child.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = msgspec.json.decode(line, type=Request)
        process = os.fork()
        if process == 0:
            _live(request)
        _tell(process=process)
        while True:
            _, status = os.waitpid(process, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            _tell(stopped=True)
        file = _report_file(request, process)
        report = msgspec.json.decode(file.read_bytes(), type=Report) if file.exists() else None
        _tell(status=os.waitstatus_to_exitcode(status), report=msgspec.to_builtins(report))


if __name__ == "__main__":
    main()
