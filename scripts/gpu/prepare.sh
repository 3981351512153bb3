#!/usr/bin/env bash
# Gathers what a bare machine with a card lacks, as wheels in .whl (which git ignores), and prints what to type there.
#
#   bash scripts/gpu/prepare.sh            # all that a round needs, if pyarrow is there
#   bash scripts/gpu/prepare.sh bench      # the fewest packages: parity, evl bench, images a second; no videos
#   bash scripts/gpu/prepare.sh store      # pyarrow in PyAV's place, where a machine has none
#
# Torch, torchvision, timm, numpy, safetensors, huggingface_hub, typer, matplotlib, pyyaml and tensorboard must be there.
# PYTHON_VERSION (3.12) and MACHINE (x86_64) say which Python there; LIMIT_MIB (60) what may travel in all; WHEELS (.whl)
# where they go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
set_name="${1:-all}"
version="${PYTHON_VERSION:-3.12}" machine="${MACHINE:-x86_64}" limit="${LIMIT_MIB:-60}" wheels="${WHEELS:-.whl}"
python="${PYTHON:-python3}"
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi

packages=(pydantic pydantic-core annotated-types typing-inspection rich markdown-it-py mdurl pygments)
case "$set_name" in
  all) packages+=(av) ;;
  bench) ;;
  store) packages+=("pyarrow==17.0.0") ;; # newer wheels are too large for the limit
  *) echo "unknown set '$set_name'; expected all, bench or store" >&2; exit 2 ;;
esac

# the versions that constraints.txt names
wanted=()
for package in "${packages[@]}"; do
  known="$(grep -i "^$package==" constraints.txt || true)"
  wanted+=("${known:-$package}")
done
platforms=(--platform "manylinux1_$machine" --platform "manylinux2014_$machine")
for minor in 17 24 26 27 28 31; do platforms+=(--platform "manylinux_2_${minor}_$machine"); done

mkdir -p "$wheels"
rm -f "$wheels"/*.whl
echo "gathering: ${wanted[*]}"
"$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
  --python-version "$version" "${platforms[@]}" -d "$wheels" "${wanted[@]}"

# what travels: the tree (tracked, or new and not ignored), a folder shared/ if there is one, and what is carried
tree="$( (git ls-files -z --cached --others --exclude-standard; [ ! -d shared ] || find -L shared -type f -print0) |
  sort -zu | { LC_ALL=C xargs -0 -r stat -c '%F|%s' 2> /dev/null || true; } | # without files that are deleted
  awk -F'|' '/^regular/ {s += $2} END {print s + 0}')"
carried="$(cat "$wheels"/*.whl | wc -c)"
mib() { awk -v n="$1" 'BEGIN {printf "%.1f", n / 1048576}'; }
total=$((tree + carried))
echo "tree $(mib "$tree") MiB + wheels $(mib "$carried") MiB = $(mib "$total") MiB, of at most $limit"
if [ "$total" -ge $((limit * 1048576)) ]; then
  echo "too much: take a smaller set (bash scripts/gpu/prepare.sh bench), or make the tree smaller" >&2
  exit 1
fi
only=""
case "$set_name" in
  bench) only=" --only machine parity stores peak bench steps" ;;
  store) only=" --only machine stores" ;;
esac
cat <<TEXT

Carry $wheels with the tree. Type there, in the root of the tree, with a limit of 10 minutes:

    bash scripts/gpu/round.sh "\$OUT"$only

Results: \$OUT/round.md, \$OUT/results.jsonl, \$OUT/log.txt. Try it here first: bash scripts/gpu/round.sh ../dry --dry
TEXT
