#!/usr/bin/env bash
# One run, for cron or a systemd timer: scripts/nightly.sh [arguments of hcad-pipeline run, such as --source hcad]
# It uses the luigid that runs (the one that `hcad-pipeline up` started, else that of [core] scheduler_url) and starts one where none
# does. Everything goes into <state>/logs/nightly-<utc>.log, the last 30 of which are kept; one line on standard output says how it
# ended. The exit code is that of `hcad-pipeline run`. SIGTERM, SIGINT and SIGHUP end the run and all its processes; the next
# run goes on where it stopped.
#   WORKERS                tasks at once (2)
#   TIMEOUT_S              seconds after which the run is ended (21600: six hours)
#   DATABASE_URL           the PostgreSQL server; unset: as in config/luigi.cfg, else the embedded one
#   HCAD_PIPELINE_STATE    state folder (var/ of this checkout)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/lib.sh"

[[ -x "${hcad_pipeline}" ]] || fail "there is no ${hcad_pipeline}; run ${root}/scripts/quickstart.sh first"
state="$(state_folder)" || exit
mkdir -p -- "${state}/logs"
log="${state}/logs/nightly-$(date -u +%Y-%m-%dT%H%M%SZ).log"

child=''
signalled=''
trap 'signalled=yes; [[ -z "${child}" ]] || kill -TERM "${child}" 2>/dev/null || true' TERM INT HUP

# in_log COMMAND...: run it with its output in the log; its exit code in `code`. A signal to us is handed on to it.
in_log() {
    "$@" >>"${log}" 2>&1 </dev/null &
    child=$!
    [[ -z "${signalled}" ]] || kill -TERM "${child}" 2>/dev/null || true
    code=0
    wait "${child}" || code=$?
    # `wait` ends early when a signal comes; the child then has its own end still before it.
    while kill -0 "${child}" 2>/dev/null; do
        code=0
        wait "${child}" || code=$?
    done
    child=''
}

# has_scheduler: whether a run would find a luigid.
has_scheduler() {
    "${venv}/bin/python" -c '
import sys
from pipeline import configuration
configuration.use_configuration()
from pipeline import scheduler, services
from pipeline.errors import SchedulerUnavailable
from pipeline.settings import read_settings
settings = read_settings()
url = next((found.url for found in services.running(settings.state) if found.name == "luigid"), settings.scheduler_url)
try:
    scheduler.require_scheduler(url)
except SchedulerUnavailable as error:
    sys.exit(f"{error}; one is started")'
}

# explain CODE: what it means to whoever reads the morning's mail.
explain() {
    case "$1" in
        0) echo 'done, or nothing was new' ;;
        10) echo 'another run was at work on the same source; nothing was done' ;;
        20) echo 'the source has not published this tax year yet' ;;
        30) echo 'it stopped for a reason that may pass; the next run goes on from there' ;;
        31) echo 'data was refused, or is held: a person must look (hcad-pipeline status)' ;;
        35) echo 'Luigi could not schedule a task; see the log' ;;
        40) echo 'a wrong configuration, or a bug; see the log' ;;
        129 | 130 | 137 | 143) echo 'a signal ended it; the next run goes on from there' ;;
        *) echo 'an exit code that the pipeline does not give; see the log' ;;
    esac
}

printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$0 $*" >>"${log}"
code=0
if [[ " $* " != *' --local-scheduler '* && " $* " != *' --scheduler-url'* ]] && ! has_scheduler >>"${log}" 2>&1; then
    in_log "${hcad_pipeline}" up
fi
if ((code == 0)) && [[ -z "${signalled}" ]]; then
    in_log "${hcad_pipeline}" run --workers "${WORKERS:-2}" --timeout "${TIMEOUT_S:-21600}" --log "${log}" "$@"
elif ((code == 0)); then
    code=30 # told to stop before it began
fi

# The names sort by time; the oldest come first.
logs=("${state}"/logs/nightly-*.log)
for ((i = 0; i < ${#logs[@]} - 30; i++)); do
    rm -f -- "${logs[i]}"
done
printf 'nightly.sh: exit code %d: %s; log %s\n' "${code}" "$(explain "${code}")" "${log}" | tee -a -- "${log}"
exit "${code}"
