# shellcheck shell=bash
# What quickstart.sh, test.sh and nightly.sh share; it is sourced, and expects `set -euo pipefail`.
# It sets `root`, the checkout that the scripts belong to, whatever the working directory and however they were called.

root="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)"
venv="${root}/.venv"
# Both scripts and the people who read their output use this one: no luigi and no hcad-pipeline need be on PATH.
# shellcheck disable=SC2034  # used by those who source this
hcad_pipeline="${venv}/bin/hcad-pipeline"

# What a virtual environment is made for: the folder that it points to, the Python, and the files that say what is in it.
FINGERPRINT='
import hashlib, pathlib, sys
digest = hashlib.sha256()
for name in ("setup.cfg", "pyproject.toml"):
    digest.update(pathlib.Path(sys.argv[1], name).read_bytes())
print("%d.%d" % sys.version_info[:2], digest.hexdigest(), sys.argv[1])
'

# fail MESSAGE: say it and end with 40, the exit code of a wrong configuration.
fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 40
}

# set_up EXTRAS: make .venv and install the checkout into it with these extras (comma-separated), unless that was done already.
# Whoever comes while another one is at it waits. The lock ends with the subshell, so nothing that is started later holds it.
set_up() (
    extras="$1"
    stamp="${venv}/set-up.stamp"
    log="${venv}/set-up.log"
    if command -v flock >/dev/null; then flock 9; fi
    if is_set_up "${stamp}" "${extras}"; then return 0; fi
    printf 'Setting up %s (once; a minute or two) ...\n' "${venv}"
    make_venv "${stamp}"
    rm -f -- "${stamp}"
    cd -- "${root}" || exit
    if ! PIP_ROOT_USER_ACTION=ignore "${venv}/bin/python" -m pip install --disable-pip-version-check -e ".[${extras}]" >"${log}" 2>&1; then
        tail -n 25 -- "${log}" >&2
        fail "the installation failed; above is the end of ${log}. See that pip reaches its package index, then run this again"
    fi
    # Last, and by one rename: an installation that was killed is begun again.
    printf '%s\n%s\n' "$("${venv}/bin/python" -c "${FINGERPRINT}" "${root}")" "${extras}" >"${stamp}.part"
    mv -f -- "${stamp}.part" "${stamp}"
) 9<"${root}/setup.cfg"

# is_set_up STAMP EXTRAS: whether .venv holds what this very checkout asks for, and at least these extras.
is_set_up() {
    local made_for installed extra
    [[ -f "$1" && -x "${venv}/bin/python" ]] || return 1
    { IFS= read -r made_for && IFS= read -r installed; } <"$1" || return 1
    [[ "${made_for}" == "$("${venv}/bin/python" -c "${FINGERPRINT}" "${root}")" ]] || return 1
    for extra in ${2//,/ }; do
        [[ ",${installed}," == *",${extra},"* ]] || return 1
    done
}

# make_venv STAMP: a virtual environment that works. One that was made for another place, or half made, is made anew.
make_venv() {
    local made_for python
    if [[ -x "${venv}/bin/python" ]] && is_supported "${venv}/bin/python" && "${venv}/bin/python" -m pip --version >/dev/null 2>&1; then
        made_for=''
        if [[ -f "$1" ]]; then IFS= read -r made_for <"$1" || true; fi
        if [[ -z "${made_for}" || "${made_for#* * }" == "${root}" ]]; then return 0; fi
    fi
    python="${PYTHON:-python3}"
    command -v -- "${python}" >/dev/null || fail "there is no ${python}; install Python 3.11, 3.12 or 3.13, or name one: PYTHON=/path/to/python3.12 $0"
    is_supported "${python}" || fail "${python} is $("${python}" --version 2>&1), and Python 3.11, 3.12 or 3.13 is needed; name one: PYTHON=/path/to/python3.12 $0"
    "${python}" -m venv --clear "${venv}" ||
        fail "${python} cannot make a virtual environment; on Debian and Ubuntu its module is a package of its own: apt install python3-venv"
}

# is_supported PYTHON: as python_requires of setup.cfg says.
is_supported() {
    "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

# state_folder: print the state folder as the pipeline itself finds it (HCAD_PIPELINE_STATE, else [paths] state, else var/).
state_folder() {
    "${venv}/bin/python" -c '
from pipeline import configuration
configuration.use_configuration()
from pipeline.settings import read_settings
print(read_settings().state)'
}
