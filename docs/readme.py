"""Renew what README.md takes from the reference records: python docs/readme.py [--check]."""
import argparse
import os
import re
import sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root))
os.environ.setdefault("PAPER_DIGEST_ROOT", str(root))

from paper_digest.ledger import budget_table, readme_section  # noqa: E402

PARTS = {"ledger": readme_section, "budget": budget_table}


def renewed(text: str) -> str:
    "The README with its generated parts written anew."
    for name, make in PARTS.items():
        marks = f"<!-- {name}: made by docs/readme.py -->", f"<!-- end of {name} -->"
        if text.count(marks[0]) != 1 or text.count(marks[1]) != 1:
            raise SystemExit(f"docs: README.md needs {marks[0]} and {marks[1]} once each")
        pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
        text = re.sub(pattern, lambda _: f"{marks[0]}\n{make()}\n{marks[1]}", text, flags=re.S)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 when README.md is not current")
    check, path = parser.parse_args().check, root / "README.md"
    old = path.read_text(encoding="utf-8")
    new = renewed(old)
    if check:
        print("README.md is current" if new == old else "README.md is not current: run python docs/readme.py")
        return int(new != old)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
