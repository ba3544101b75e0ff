"""What the programs of a shell script receive: bash itself runs it, restricted (no redirection, no
path, no ``cd``), with nothing on its PATH but stand-ins that say how they were called.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("accelerate", "deepspeed", "llamafactory-cli", "python", "torchrun", "trl")
STAND_IN = """#!{python}
import json, os, sys
with open(os.path.join(os.path.dirname(sys.argv[0]), "calls"), "a") as calls:
    calls.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""


def calls(script: str) -> list[list[str]]:
    """The commands that a script runs, as lists of words."""
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            path = Path(folder) / name
            path.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
            path.chmod(0o755)
        text = Path(script).read_text(encoding="utf-8")
        subprocess.run(
            ["/bin/bash", "-r", "-c", text], env={"PATH": folder}, capture_output=True, check=False
        )
        made = Path(folder) / "calls"
        lines = made.read_text(encoding="utf-8").splitlines() if made.exists() else []
        return [json.loads(line) for line in lines]


def arguments(call: list[str]) -> list[str]:
    """What the training program itself receives: what stands behind its script or subcommand."""
    for at, word in enumerate(call):
        if word.endswith(".py") or (at == 1 and call[0] in ("trl", "llamafactory-cli")):
            return call[at + 1 :]
    return call[1:]
