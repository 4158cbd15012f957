"""Hides folders from this process and its children, where the system lets it: they look empty."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000
_SLAVE, _RECURSIVE, _READ_ONLY = 1 << 19, 1 << 14, 1


def hide(folders: Sequence[str]) -> bool:
    """Put an empty folder over each of these, for this process and those that it starts alone.

    It takes a mount namespace of its own, which Linux gives to root and, in many places, to everybody (in a user
    namespace). A child tries first, so that where it cannot be had nothing has changed. Called before any thread runs.

    Parameters
    ----------
    folders
        By their real paths; those that are not there are passed over.

    Returns
    -------
    bool
        Whether they are hidden now.
    """
    there = [folder for folder in folders if Path(folder).is_dir()]
    if not there or not hasattr(os, "fork"):
        return False
    child = os.fork()
    if child == 0:
        try:
            _hide(there)
        except BaseException:  # whatever it is, this is not the process that is to tell it
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        return False
    _hide(there)
    return True


def _hide(folders: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)

    user, group = os.getuid(), os.getgid()
    if user == 0:
        call("unshare", _NEW_NAMESPACE)
    else:
        call("unshare", _NEW_NAMESPACE | _NEW_USER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(text)
    # what is mounted here stays here; what the machine mounts later is seen here, too
    call("mount", b"none", b"/", None, ctypes.c_ulong(_SLAVE | _RECURSIVE), None)
    for folder in folders:
        call("mount", b"none", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_READ_ONLY), b"size=4k")
        if any(Path(folder).iterdir()):
            raise OSError(f"{folder} is still seen")
