"""Choose the account the servers run as, and get there.

PostgreSQL refuses to run as root. An ordinary user runs the servers as himself; root runs them as
`nobody`, through `setpriv`, because a parent-death signal set before the change of user would be
cleared by it (prctl(2), PR_SET_PDEATHSIG). No permission is widened for that.
"""

import os
import signal
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from analytics_collector.embedded.binaries import EmbeddedError

if sys.platform != "win32":
    import pwd

_STATUS = Path("/proc/self/status")
_CAP_DAC_READ_SEARCH = 1 << 2
_CAP_SETPCAP = 1 << 8

# The parent may have died before setpriv set the signal: then nobody would ever send it.
_STAY_ONLY_WITH_PARENT = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"'


class NotReachable(EmbeddedError):
    """The server's account cannot get at a path; open it or use a data directory elsewhere."""

    def __init__(self, path: Path, account: str) -> None:
        super().__init__(
            f"PostgreSQL cannot run as root, and the user {account!r} cannot get through {path}. "
            f"Allow it with `chmod o+x {path}`, or keep the data directory and the Python "
            "environment elsewhere (such as /var/lib), or run as an ordinary user"
        )
        self.path = path
        self.account = account


@dataclass(frozen=True)
class Account:
    """The user a server runs as, when it is not the one who starts it."""

    name: str
    uid: int
    gid: int
    searches_anywhere: bool = False


def server_account(directories: Iterable[Path], programs: Iterable[Path]) -> Account | None:
    """Return the account that servers need to use these paths, or None to stay who we are."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    programs = tuple(programs)
    for program in programs:
        # No capability short of overriding every permission would help here.
        if not _may_execute(program.stat(), account):
            raise NotReachable(program, account.name)
    for path in (*directories, *(program.parent for program in programs)):
        closed = closed_directory(path, account)
        if closed is None:
            continue
        if not _can_lend_search():
            raise NotReachable(closed, account.name)
        return Account(account.name, account.uid, account.gid, searches_anywhere=True)
    return account


def closed_directory(path: Path, account: Account) -> Path | None:
    """Return the topmost directory on the way into `path` that the account may not enter."""
    for directory in (*reversed(path.parents), path):
        if directory.exists() and not _may_execute(directory.stat(), account):
            return directory
    return None


def become(account: Account, parent_death_signal: signal.Signals) -> list[str]:
    """Return the command line that runs what follows it as the account (Linux only)."""
    command = [
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        f"--pdeathsig={parent_death_signal.name.removeprefix('SIG')}",
    ]
    if account.searches_anywhere:
        # Reading and searching only, for a data directory below a closed one (/root, mktemp -d).
        # Without the securebit access(2) ignores the capability, and initdb asks access(2).
        command += [
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
            "--securebits=+no_setuid_fixup",
        ]
    return [*command, "sh", "-c", _STAY_ONLY_WITH_PARENT, "sh", str(os.getpid())]


def _may_execute(status: os.stat_result, account: Account) -> bool:
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _can_lend_search() -> bool:
    # Containers often run as a root who lacks these.
    if not _STATUS.exists():
        return False
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    needed = _CAP_DAC_READ_SEARCH | _CAP_SETPCAP
    return all(int(lines[name], 16) & needed == needed for name in ("CapEff", "CapBnd"))
