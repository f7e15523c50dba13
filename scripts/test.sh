#!/usr/bin/env bash
# The tests with their coverage: scripts/test.sh [pytest's arguments; paths start at the checkout]
# It makes .venv where there is none, and fails when a test fails or when less than 80 % of the code was run. Processes that tests
# start are counted in; those of tests/e2e only where a test is marked traced, for tracing doubles what they take. Without arguments
# it runs all tests, several at once, and then, one after the other, those that measure time (marked serial). With arguments all that
# they name runs in one process; for some of the tests add --no-cov: they cannot run all of the code.
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
code=0
# A file stays in one process, for what its tests share; the longest ones come first, so that no process is left with them at the end.
"${pytest[@]}" --cov-report= -m 'not serial' --numprocesses="${workers}" --dist=loadfile --no-loadscope-reorder tests/e2e tests/integration tests || code=$?
if ((code == 2)); then exit 2; fi # a person stopped it, or a file cannot be collected
"${pytest[@]}" "${report[@]}" --cov-append -m serial || code=$?
exit "${code}"
