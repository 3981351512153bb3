#!/usr/bin/env bash
# Is evl right and fast on this machine's card?    bash scripts/gpu/round.sh OUT [--dry] [--only PART …] [--device cpu]
# Wheels that scripts/gpu/prepare.sh has gathered in .whl are installed into a temporary folder first, if there are some.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python="${PYTHON:-python3}"
if [ -z "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then python="$root/.venv/bin/python"; fi

shopt -s nullglob
wheels=("$root"/.whl/*.whl)
if [ "${#wheels[@]}" -gt 0 ]; then
  site="$(mktemp -d)"
  trap 'rm -rf "$site"' EXIT
  if "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check \
    --root-user-action ignore --target "$site" "${wheels[@]}"; then
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
  else
    echo "the wheels in .whl could not be installed here; going on with the packages that are there" >&2
  fi
fi
"$python" "$root/scripts/gpu/runner.py" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null || true' TERM INT
code=0
wait "$child" || code=$?
if kill -0 "$child" 2>/dev/null; then code=0; wait "$child" || code=$?; fi
exit "$code"
