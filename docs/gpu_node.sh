#!/usr/bin/env bash
# All gpu tiers on a node without a network: bash docs/gpu_node.sh WHEELS (docs/gpu.md says how to fill that folder)
set -euo pipefail
wheels=$(cd "${1:?usage: bash docs/gpu_node.sh WHEELS}" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
offline=(--no-index --find-links "$wheels" -c constraints.txt --disable-pip-version-check -q)
if ! .venv/bin/python -c "import paper_digest" 2>/dev/null; then
  "$python" -m venv .venv
  .venv/bin/pip install "${offline[@]}" 'setuptools<81' wheel
  .venv/bin/pip install "${offline[@]}" --no-build-isolation -e '.[ray]'
fi
.venv/bin/python -c "import torch; c = torch.cuda; print('torch', torch.__version__, c.get_device_name() if c.is_available() else 'sees no GPU')"
# status 1 and 2 are of one recipe (failed, or skipped and so no reference record), which has said so
for recipe in $(.venv/bin/paper-digest list --json | .venv/bin/python -c "
import json, sys
print(*(r['recipe'] for r in json.load(sys.stdin) if 'gpu' in r['tiers']))"); do
  .venv/bin/paper-digest run "$recipe" --tier gpu --reference || true
done
shopt -s nullglob globstar
kept=(results/*/*-gpu.json results/*/figures/*-gpu/*.png)
if [ ${#kept[@]} -eq 0 ]; then
  echo "no gpu tier finished; the lines above say why" >&2
  exit 1
fi
tar czf gpu_results.tgz "${kept[@]}"
echo "gpu_results.tgz: ${#kept[@]} files; unpack it in the repository at home"
