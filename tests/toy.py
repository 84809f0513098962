"A repository of its own with toy recipes, for tests of the runner and the command line."
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
YAML = """
title: A toy
summary: A toy recipe
reproduces: [headline]
headline: true
data: [{data}]
claims:
  - id: hot.{name}
    claim: Highlighting helps arithmetic on average
    published: {{table: headline, dataset: arithmetic}}
tiers:
  smoke: {{minutes: 0.1}}
  tiny: {{minutes: 0.1}}
  gpu: {{minutes: 1, needs: [gpu], params: {{seconds: 0.5}}}}
"""
BODY = """
import time
from pathlib import Path
from paper_digest.records import SkipRecipe, start_run
run = start_run('hot/{name}', tier=tier, seed=seed, seconds=seconds)
Path(r'{log}').open('a').write('{name}\\n')
for _ in run.track(range(int(run.params.seconds * 10)), 'ticks'):
    time.sleep(.1)
{extra}
run.metric('headline', 'mean of 5 models', 'HoT-CoT', 'arithmetic', 'delta points', 1.5, n=10, ci=(.5, 2.5))
run.claim('hot.{name}', 1.5, (.5, 2.5), n=10, evidence='a toy')
run.finish()
"""


def toy_repo(folder, data="", **recipes):
    "A checkout with one recipe for each keyword: its value is code that runs before the measurement."
    root, log = Path(folder), Path(folder) / "executed.txt"
    for name in ("settings.ini", "data/registry.csv", "data/published/hot.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "data/claims.yaml").write_text("hot: []\n")
    place = root / "nbs/recipes/hot"
    place.mkdir(parents=True)
    for name, extra in recipes.items():
        nb = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
        nb.cells = [nbformat.v4.new_markdown_cell(f"# {name}"),
                    nbformat.v4.new_code_cell('tier = "tiny"\nseed = 0\nseconds = 0.0', metadata={"tags": ["parameters"]}),
                    nbformat.v4.new_code_cell(BODY.format(name=name, log=log, extra=extra))]
        nbformat.write(nb, place / f"{name}.ipynb")
        (place / f"{name}.yaml").write_text(YAML.format(name=name, data=data))
    log.touch()
    return root


def executed(root):
    "How often each recipe's notebook was really executed."
    return (root / "executed.txt").read_text().split()
