#!/usr/bin/env bash
# The scheduler in the foreground, for an operator or a systemd unit: scripts/luigid.sh [luigid's options]
# It listens on 127.0.0.1 only, because luigid has no authentication.
#   LUIGID_PORT            port (8082)
#   LUIGI_CONFIG_PATH      configuration (config/luigi.cfg of this repository)
#   HCAD_PIPELINE_STATE    state folder (var/ of this repository); the scheduler keeps luigid/state.pickle below it
# `hcad-pipeline` starts a scheduler of its own where none runs; this script is for one that is kept running.
set -euo pipefail

root="$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)"
python="${root}/.venv/bin/python"
state="${HCAD_PIPELINE_STATE:-${root}/var}"

if [[ ! -x "${python}" ]]; then
    printf 'luigid.sh: there is no %s; run %s first\n' "${python}" "${root}/scripts/quickstart.sh" >&2
    exit 40
fi
mkdir -p -- "${state}/luigid"
state="$(cd -- "${state}" && pwd -P)"
config="${LUIGI_CONFIG_PATH:-${root}/config/luigi.cfg}"
[[ "${config}" = /* ]] || config="${PWD}/${config}"
if [[ ! -r "${config}" ]]; then
    printf 'luigid.sh: cannot read the configuration %s\n' "${config}" >&2
    exit 40
fi
export LUIGI_CONFIG_PATH="${config}"
cd -- "${root}" # relative paths in the configuration are relative to the repository
exec "${python}" -c 'from luigi.cmdline import luigid; luigid()' \
    --port "${LUIGID_PORT:-8082}" --state-path "${state}/luigid/state.pickle" "$@" --address 127.0.0.1
