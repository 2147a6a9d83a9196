"""Run every benchmark, each in a process of its own, and sum up."""

import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks._claim import CHECKOUT, Claim, last_line, table


def names() -> list[str]:
    """Every module that measures a claim."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> int:
    """Run all of them; 1 when one of them did not hold or did not finish, else 0."""
    claims = []
    for name in names():
        print(f"\n{name}", flush=True)
        ran = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], check=False, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        print(ran.stdout, end="", flush=True)
        try:
            claims.append(last_line(ran.stdout))
        except ValueError as error:
            claims.append(Claim(name, {"exit_code": ran.returncode}, str(error), ok=False))
    rows = [(claim.name, claim.goal, "yes" if claim.ok else "NO") for claim in claims]
    Console().print(table("Benchmarks", ("name", "goal", "holds"), rows))
    return 0 if all(claim.ok for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
