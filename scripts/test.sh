#!/usr/bin/env bash
# The tests with their coverage: scripts/test.sh [pytest's arguments; paths start at the checkout]
# It makes .venv where there is none, and fails when a test fails or when less than 80 % of the code was run. Processes that tests
# start are counted in; those of tests/e2e only where a test is marked traced, for tracing doubles what they take. Without arguments
# it runs all tests, several at once, and then, one after the other, those that measure time (marked serial). Tests that failed beside
# others are run once more before that, alone and one after the other, when there are no more than five: those that fail again fail
# the run; those that pass do not, and are named at the end. With arguments all that they name runs in one process, once;
# for some of the tests add --no-cov: they cannot run all of the code.
#   PYTHON               Python 3.11 to 3.13 that .venv is made with (python3)
#   TEST_DATABASE_URL    a PostgreSQL on which the tests may make databases, instead of the embedded one
#   TEST_WORKERS         how many tests run at once (as many as there are processors, and at least 2)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/lib.sh"

set_up embedded,dev
# What an operator has set is about another database than the tests'.
unset DATABASE_URL LUIGI_CONFIG_PATH HCAD_PIPELINE_STATE HCAD_PIPELINE_PROFILE HCAD_PIPELINE_MIRROR
cd -- "${root}"
pytest=("${venv}/bin/python" -m pytest --cov=pipeline)
report=(--cov-report=term --cov-fail-under=80)
if (($#)); then exec "${pytest[@]}" "${report[@]}" "$@"; fi

workers="${TEST_WORKERS:-$("${venv}/bin/python" -c 'import os; print(max(2, os.cpu_count() or 2))')}"
most_again=5
# pytest's notes of this run alone: of one before there may be failures that nobody has run since.
notes="$(mktemp -d)"
trap 'rm -rf -- "${notes}"' EXIT
noted=(-o "cache_dir=${notes}")

# failures: the tests that have failed and not passed since, one a line.
failures() {
    "${venv}/bin/python" -c '
import json, pathlib, sys
note = pathlib.Path(sys.argv[1], "v", "cache", "lastfailed")
for test in json.loads(note.read_text()) if note.exists() else ():
    print(test)
' "${notes}"
}

code=0
# A file stays in one process, for what its tests share; the longest ones come first, so that no process is left with them at the end.
"${pytest[@]}" "${noted[@]}" --cov-report= -m 'not serial' --numprocesses="${workers}" --dist=loadfile --no-loadscope-reorder \
    tests/e2e tests/integration tests || code=$?
if ((code == 2)); then exit 2; fi # a person stopped it, or a file cannot be collected
recovered=""
failed="$(failures)"
if ((code == 1)) && [[ -n "${failed}" ]] && (($(wc -l <<<"${failed}") <= most_again)); then
    printf '\n== failed beside others: once more, alone\n'
    code=0
    "${pytest[@]}" "${noted[@]}" --cov-report= --cov-append --last-failed --last-failed-no-failures=none || code=$?
    if ((code == 2)); then exit 2; fi
    recovered="$(grep -vxF -f <(failures) <<<"${failed}" || true)"
fi
"${pytest[@]}" "${report[@]}" --cov-append -m serial || code=$?
if [[ -n "${recovered}" ]]; then printf '\n== failed beside others, passed alone\n%s\n' "${recovered}"; fi
exit "${code}"
