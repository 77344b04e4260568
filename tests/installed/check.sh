#!/usr/bin/env bash
# The wheel that the sdist gives, in a clean environment, from an unrelated directory: the same help, the same tiny run.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"$repository/.venv/bin/python" -m build --outdir "$place/dist" "$repository" >"$place/build.log" || { cat "$place/build.log"; exit 1; }
"$repository/.venv/bin/python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$repository/constraints.txt" "$place"/dist/*.whl

cd "$place"
venv/bin/python -m lockdec.run --help >help.txt
grep -q 'cross_attention: low' help.txt
venv/bin/python -m lockdec.run debug=tiny
venv/bin/python -c 'import lockdec; assert "site-packages" in lockdec.__file__, lockdec.__file__'
test "$(venv/bin/python -c 'import glob, json; print(json.load(open(glob.glob("outputs/runs/default/*/result.json")[0]))["status"])')" = ok
run=$(echo outputs/runs/default/*/)
echo 'raise SystemExit("imported from the current folder")' | tee "$run/random.py" "$run/argparse.py" >/dev/null
test "$(cd "$run" && "$place/venv/bin/lockdec" report . | tail -1)" = "report.html (1 run)"
test "$(cd "$run" && "$place/venv/bin/python" -m lockdec.report . | tail -1)" = "report.html (1 run)"
venv/bin/lockdec --help | grep -q 'lockdec caption'
echo "the wheel works from a clean environment"
