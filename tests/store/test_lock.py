"""One run an output."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcbatch.errors import CannotCreateOutput, OutputFailed
from lcbatch.store.lock import OutputLocked, hold_lock, holder_of, refuse_network_file_system


def test_the_second_of_two_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out.jsonl.lcbatch.lock"

    async def main() -> None:
        async with hold_lock(path, command="lcbatch run in.jsonl"):
            with pytest.raises(
                OutputLocked, match=f"out.jsonl.lcbatch is in use by another run .process {os.getpid()}"
            ):
                async with hold_lock(path):
                    pass
            holder = holder_of(path)
            assert holder is not None
            assert (holder["pid"], holder["command"]) == (os.getpid(), "lcbatch run in.jsonl")

    asyncio.run(main())


def test_the_lock_file_stays_and_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    async def main() -> None:
        async with hold_lock(path, command="a longer command than the next one"):
            inode = path.stat().st_ino
        assert holder_of(path) is None
        async with hold_lock(path, command="short"):
            assert path.stat().st_ino == inode
            assert json.loads(path.read_text())["command"] == "short"

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"[[package]]\n", b"{ }"])
def test_a_file_of_somebody_elses_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Cargo.lock"
    path.write_bytes(content)

    async def main() -> None:
        with pytest.raises(CannotCreateOutput, match="not written over"):
            async with hold_lock(path):
                pass

    asyncio.run(main())
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b'{"pid": 7, "ho', b"{"])
def test_what_a_power_loss_left_of_a_lock_is_taken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.jsonl.lcbatch.lock"
    path.write_bytes(content)

    async def main() -> None:
        async with hold_lock(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()

    asyncio.run(main())


def test_an_error_inside_releases_it(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="inside"):
            async with hold_lock(tmp_path / "lock"):
                raise ValueError("inside")
        assert holder_of(tmp_path / "lock") is None

    asyncio.run(main())


def test_who_waits_gets_it_after_the_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order = []

    async def second() -> None:
        async with hold_lock(path, wait=True):
            order.append("second")

    async def main() -> None:
        async with asyncio.TaskGroup() as group, hold_lock(path):
            group.create_task(second())
            await asyncio.sleep(0)
            order.append("first")

    asyncio.run(main())
    assert order == ["first", "second"]


def test_who_gives_up_waiting_leaves_nothing_held(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    async def wait() -> None:
        async with hold_lock(path, wait=True):
            raise AssertionError("it was cancelled")

    async def main() -> None:
        async with hold_lock(path):
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        async with hold_lock(path, wait=True):
            assert holder_of(path) is not None

    asyncio.run(main())
    asyncio.run(main())


def test_somebody_who_only_looks_does_not_turn_a_run_away(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    async def main() -> None:
        looking = os.open(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(looking, fcntl.LOCK_EX)
        asyncio.get_running_loop().call_later(0.001, os.close, looking)
        async with hold_lock(path):
            assert holder_of(path) is not None

    asyncio.run(main())


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import asyncio, sys, pathlib\nfrom lcbatch.store.lock import hold_lock\n"
        "async def main():\n    async with hold_lock(pathlib.Path(sys.argv[1])):\n        print('held', flush=True); input()\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        holder = holder_of(path)
        assert holder is not None
        assert holder["pid"] == process.pid
        process.kill()
    assert holder_of(path) is None


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "lock") is None
    assert not (tmp_path / "lock").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def main() -> None:
        with pytest.raises(CannotCreateOutput, match="cannot create"):
            async with hold_lock(tmp_path / "file" / "lock"):
                pass

    asyncio.run(main())


def _mounts(folder: Path, *lines: str) -> Path:
    path = folder / "mounts"
    path.write_text("\n".join(["/dev/sda1 / ext4 rw 0 0", *lines, ""]))
    return path


@pytest.mark.parametrize("kind", ["nfs4", "nfs", "cifs", "smb3", "fuse.sshfs", "ceph"])
def test_a_network_file_system_is_refused_with_a_way_out(tmp_path: Path, kind: str) -> None:
    mounts = _mounts(tmp_path, f"server:/export {tmp_path}/shared\\040data {kind} rw 0 0")
    with pytest.raises(CannotCreateOutput, match=kind) as caught:
        refuse_network_file_system(tmp_path / "shared data" / "deeper", mounts)
    assert "--store" in caught.value.hint
    refuse_network_file_system(tmp_path / "shared", mounts)


def test_the_innermost_mount_decides(tmp_path: Path) -> None:
    mounts = _mounts(tmp_path, f"server:/export {tmp_path} nfs rw 0 0", f"/dev/sdb {tmp_path}/local ext4 rw 0 0")
    refuse_network_file_system(tmp_path / "local", mounts)
    with pytest.raises(CannotCreateOutput):
        refuse_network_file_system(tmp_path / "localized", mounts)


def test_a_link_to_a_network_file_system_is_seen(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "remote")
    with pytest.raises(CannotCreateOutput):
        refuse_network_file_system(tmp_path / "link", _mounts(tmp_path, f"server:/x {tmp_path}/remote nfs rw 0 0"))


def test_a_system_without_a_list_of_mounts_is_trusted(tmp_path: Path) -> None:
    refuse_network_file_system(tmp_path, tmp_path / "missing")


def test_a_full_disk_has_no_room_for_the_holders_name_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def main() -> None:
        async with hold_lock(tmp_path / "lock"):
            raise AssertionError("it was held without a name in it")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputFailed, match="No space left") as caught:
        asyncio.run(main())
    assert caught.value.hint
    monkeypatch.undo()
    assert holder_of(tmp_path / "lock") is None
