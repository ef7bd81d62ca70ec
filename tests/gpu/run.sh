#!/usr/bin/env bash
# Checks Visage on this machine's GPU: `./run.sh`, or `./run.sh --device cpu` to check the kit itself.
# Needs python3 with PyTorch (PYTHON=... names another); writes report.md and report.json beside this file.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
for python in "${PYTHON:-python3}" "$(cat "$here/python" 2>/dev/null || true)"; do
  if [ -n "$python" ] && "$python" -c 'import torch' 2>/dev/null; then
    exec "$python" "$here/run.py" "$@"
  fi
done
echo "run.sh: no Python here imports torch; install PyTorch $(cat "$here/torch-version"), or name a Python that has it: PYTHON=... ./run.sh" >&2
exit 2
