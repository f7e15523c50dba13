#!/usr/bin/env bash
# From a fresh clone to real rows in PostgreSQL: scripts/quickstart.sh
# It makes .venv, starts luigid, an embedded PostgreSQL and a small HTTP server that has the sample bundle, runs the pipeline on
# that bundle, and says what to try next. What it started stays up until `hcad-pipeline down`. Run it again at any time: it
# takes up what it finds, and a second run takes seconds. The exit code is that of the run.
#   PYTHON                 Python 3.11 to 3.13 that .venv is made with (python3)
#   DATABASE_URL           a PostgreSQL of your own instead of the embedded one
#   HCAD_PIPELINE_STATE    state folder (var/ of this checkout)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/lib.sh"

(($# == 0)) || fail "it takes no arguments; see the top of the file"
set_up embedded

# Addressed to somebody who may stand in another folder and have no environment of ours: ready to be pasted.
ready=$(printf '%q' "${hcad_pipeline}")
state="$(state_folder)" || exit
if [[ -n "${HCAD_PIPELINE_STATE:-}" ]]; then ready+=" --state $(printf '%q' "${state}")"; fi

code=0
services="$("${hcad_pipeline}" up --sample)" || code=$?
if ((code != 0)); then
    printf 'quickstart.sh: the services did not start (exit code %d). Their logs are below %s\n' "${code}" "${state}" >&2
    exit "${code}"
fi

# The sample's fifty accounts must not take the place of a county's.
"${hcad_pipeline}" status --json | "${venv}/bin/python" -c '
import json, sys
real = ["%(source)s %(tax_year)s" % row for row in json.load(sys.stdin)["current"] if row["profile"] != "sample"]
sys.exit("it holds " + ", ".join(real) if real else 0)' ||
    fail "this database has imports that are not of the sample, and the sample would replace them. Unset DATABASE_URL, or choose another HCAD_PIPELINE_STATE"

log="${state}/logs/quickstart.log"
mkdir -p -- "${state}/logs"
: >"${log}"
printf '\nRunning the pipeline on the sample bundle ...\n\n'
"${hcad_pipeline}" --profile sample run --log "${log}" || code=$?

if ((code != 0)); then
    printf '\nThe run ended with exit code %d. The end of %s:\n\n' "${code}" "${log}"
    tail -n 25 -- "${log}"
    printf '\nWhat its code (E_...) means and what to do: docs/operations.md. To stop what was started: %s down\n' "${ready}"
    exit "${code}"
fi
cat <<TEXT

These stay up:

${services}

Worth trying: on which days were most protests of 2019 filed?

  ${ready} query "select protested_dt, count(*) from hcad.arb_protest_real where tax_year = 2019 group by 1 order by 2 desc limit 5"

What is current, and what the last runs did:  ${ready} status
Once more (nothing is new, nothing is done):  ${ready} --profile sample run
Stop everything:                              ${ready} down
TEXT
