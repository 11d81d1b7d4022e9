"""`lcbatch stop OUT`: let a running run finish what is in flight, and end."""

from __future__ import annotations

import os
import signal
import socket

import typer

from lcbatch.cli.found import Out, Store, lock_of, store_of
from lcbatch.errors import AccessDenied, RefusedError
from lcbatch.store.lock import holder_of


def stop(out: Out, store: Store = None) -> int:
    """Drain the run that works on an output: calls in flight end, nothing new begins."""
    path = store_of(out, store)
    holder = holder_of(lock_of(path))
    if holder is None:
        typer.echo(f"no run works on {out}", err=True)
        return 0
    pid, host = holder.get("pid"), holder.get("host")
    if not isinstance(pid, int) or host != socket.gethostname():
        raise RefusedError(f"the run on {out} is process {pid} on {host}", hint="stop it there")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        typer.echo(f"process {pid} has just ended", err=True)
        return 0
    except PermissionError as error:
        raise AccessDenied(f"process {pid} belongs to another user", hint="stop it as that user") from error
    typer.echo(f"asked process {pid} to stop; it finishes what is in flight first", err=True)
    return 0
