"""Fill .venv from the lock (`install`), or write the locks again (`lock [--upgrade]`).

Needs nothing but the standard library and pip, as a fresh virtual environment has them. uv does the
work because it is twenty times as fast as pip; where it fails, pip installs the same lock.

The project is not installed as a package: its top-level folders must never become a wheel. Their
parent is put on the path by a .pth file, and the `lockstep` command is a script beside python.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
RUNTIME_LOCK: Final = ROOT / "requirements.lock"
DEV_LOCK: Final = ROOT / "requirements-dev.lock"
STAMP: Final = VENV / ".installed-lock"
SYSTEM_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# Starts from any folder, also one with spaces, which a plain #! line cannot name.
COMMAND: Final = """\
#!/bin/sh
'''exec' "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"
' '''
import sys

from lockstep.cli import main

sys.exit(main())
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status of the command that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["install", "lock"])
    parser.add_argument("--upgrade", action="store_true", help="lock: take the newest versions")
    asked = parser.parse_args(arguments)
    if asked.command == "lock":
        return write_locks(upgrade=asked.upgrade)
    if not install_lock():
        return 1
    install_project()
    return 0


def install_lock() -> bool:
    """Make .venv hold what the lock says, unless it does already; False if that failed."""
    wanted = f"{fingerprint_of(DEV_LOCK.read_bytes())} {sys.version}"
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted:
        return True
    STAMP.unlink(missing_ok=True)
    print(f"Installing {DEV_LOCK.name} into .venv (about 600 MB, once) ...", flush=True)
    pip = pip_settings()
    environment = uv_environment(os.environ, pip, mirrors=True)
    # uv has no variable for this one.
    alone = ["--no-index"] if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"} else []
    # Bars for a person; without one, uv would print every package.
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    sync = ["pip", "sync", *quiet, *alone, "--python", sys.executable, *_strict(), str(DEV_LOCK)]
    uv = find_uv()
    done = uv is not None and _run([*uv, *sync], environment)
    if not done:
        print("uv could not install the lock; pip tries.", file=sys.stderr, flush=True)
        done = _run([*_pip("install"), "--no-deps", *_strict(), "--requirement", str(DEV_LOCK)])
    if not done:
        print(
            "The lock was not installed, see above. Behind a mirror, name it in pip's own"
            " configuration (pip config set global.index-url ...), then run make again.",
            file=sys.stderr,
        )
        return False
    STAMP.write_text(wanted, encoding="utf-8")
    return True


def fingerprint_of(lock: bytes) -> str:
    """Return what the stamp knows a lock by."""
    return hashlib.sha256(lock).hexdigest()


def install_project() -> None:
    """Put this folder on .venv's path and the `lockstep` command beside its python."""
    packages = Path(sysconfig.get_path("purelib"))
    _write(packages / "lockstep-project.pth", f"{ROOT}\n")
    command = Path(sysconfig.get_path("scripts")) / "lockstep"
    _write(command, COMMAND)
    command.chmod(0o755)


def write_locks(*, upgrade: bool) -> int:
    """Write both locks again; versions stay as they are unless a declaration asks for others.

    Only the main index and the certificates come from pip's configuration: an extra index may hold
    a part of a release's files, and the locks must know the hashes of all of them.
    """
    uv = find_uv()
    if uv is None:
        return 1
    environment = uv_environment(os.environ, pip_settings(), mirrors=False)
    common = [
        *("--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"),
        *("--no-emit-index-url", "--no-emit-find-links", "--custom-compile-command", "make lock"),
        *(["--upgrade"] if upgrade else []),
        "pyproject.toml",
    ]
    groups = ["--group", "dev", "--group", "demo", "--constraint", RUNTIME_LOCK.name]
    for lock, more in ((RUNTIME_LOCK, []), (DEV_LOCK, groups)):
        compiling = [*uv, "pip", "compile", *common, *more, "--output-file", lock.name]
        if not _run(compiling, environment):
            return 1
    return 0


def find_uv() -> list[str] | None:
    """Return how to start uv: from the PATH, else .venv's own, which pip fetches if missing."""
    found = shutil.which("uv")
    if found is not None:
        return [found]
    own = [sys.executable, "-m", "uv"]
    if _run([*own, "--version"], quiet=True):
        return own
    pin = locked(DEV_LOCK.read_text(encoding="utf-8"), "uv") if DEV_LOCK.is_file() else ""
    if not pin:
        print(f"{DEV_LOCK.name} pins no uv. Put any uv on the PATH.", file=sys.stderr)
        return None
    wanted = VENV / "uv.lock"
    wanted.write_text(pin, encoding="utf-8")
    fetched = _run([*_pip("install"), "--quiet", *_strict(), "--requirement", str(wanted)])
    wanted.unlink()
    return own if fetched else None


def locked(lock: str, package: str) -> str:
    """Return the part of a lock that pins one package with its hashes."""
    found = re.search(rf"^{re.escape(package)}==.*\n(?:[ ]+--hash=.*\n)+", lock, re.MULTILINE)
    return found.group() if found else ""


def pip_settings() -> dict[str, str]:
    """Return pip's settings as pip reads them, from its files and its environment."""
    listed = subprocess.run(
        [*_pip("config"), "list"], capture_output=True, text=True, check=False
    ).stdout
    pairs = [line.partition("=") for line in listed.splitlines()]
    read = {name: ast.literal_eval(value) for name, equals, value in pairs if equals}
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # the later wins
        inside = {n: v for n, v in read.items() if n.startswith(f"{section}.")}
        settings |= {n.removeprefix(f"{section}."): str(v) for n, v in inside.items()}
    return settings


def uv_environment(
    environment: Mapping[str, str], pip: Mapping[str, str], *, mirrors: bool
) -> dict[str, str]:
    """Return the environment in which uv reaches what pip reaches; uv's own settings win.

    uv reads none of pip's configuration: behind a company's mirror it would ask the public index.

    Args:
        environment: The one to start from.
        pip: pip's settings, as `pip_settings` returns them.
        mirrors: Whether extra indexes and folders of files count too.
    """
    told = {"UV_DEFAULT_INDEX": pip.get("index-url")}
    told["UV_INSECURE_HOST"] = _words(pip.get("trusted-host"))
    told["ALL_PROXY"] = pip.get("proxy")
    told["SSL_CERT_FILE"] = pip.get("cert")
    if pip.get("cert") is None and SYSTEM_CERTIFICATES.is_file():
        told["UV_SYSTEM_CERTS"] = "1"
    if mirrors:
        told["UV_INDEX"] = _words(pip.get("extra-index-url"))
        told["UV_FIND_LINKS"] = _words(pip.get("find-links"), ",")
        # As pip does; the lock's hashes keep a stranger's file of the same name out.
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    own = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
    if any(environment.get(name) for name in own):
        places = {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"}
        told = {name: value for name, value in told.items() if name not in places}
    return {name: value for name, value in told.items() if value} | dict(environment)


def _words(setting: str | None, between: str = " ") -> str | None:
    return between.join(setting.split()) if setting else None


def _strict() -> list[str]:
    return ["--require-hashes", "--only-binary", ":all:"]


def _pip(command: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", command]


def _run(
    command: Iterable[str], environment: Mapping[str, str] | None = None, *, quiet: bool = False
) -> bool:
    output = subprocess.DEVNULL if quiet else None
    return (
        subprocess.run(
            list(command), cwd=ROOT, env=environment, stdout=output, stderr=output, check=False
        ).returncode
        == 0
    )


def _write(file: Path, text: str) -> None:
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
