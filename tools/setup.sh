#!/bin/sh
# Makes .venv and fills it from requirements-dev.lock; a second run finds nothing to do.
# With `lock` it writes the locks again instead, for which they need not be installed.
# PYTHON names another interpreter: make setup PYTHON=python3.12
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

refuse() {
    printf '%s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || refuse \
    "There is no $python on the PATH. Lockstep needs Python 3.11 or newer." \
    "Install it: apt install python3 python3-venv   Nothing was changed."

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || refuse \
    "$python is Python $version. Lockstep needs 3.11 or newer." \
    "Name another one: make setup PYTHON=python3.12   Nothing was changed."

# Debian's packages: python3-venv for its own python3, python3.12-venv for another one beside it.
case $(basename "$python") in
    python3.*) package=$(basename "$python")-venv ;;
    *) package=python3-venv ;;
esac

# An environment whose interpreter is gone (an upgrade, a copied folder) is made again.
if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || refuse \
        "$python (Python $version) cannot make virtual environments: venv or ensurepip is missing." \
        "Install it: apt install $package   Nothing was changed."
    "$python" -m venv --clear .venv || refuse \
        "$python -m venv failed, see above. If a part of Python is missing: apt install $package"
fi

[ $# -gt 0 ] || set -- install
exec .venv/bin/python tools/environment.py "$@"
