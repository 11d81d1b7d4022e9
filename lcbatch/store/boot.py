"""Which boot of the machine this is: after an unclean end and another boot, files may lack what was never synced."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """A text that changes with every boot; "" where the system does not say."""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
        return found.stdout.strip()
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
