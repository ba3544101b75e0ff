"""Compare ``inject`` with every PEFT release, and write docs/peft-releases.md.

    python tools/oracle_releases.py                 # every release of tests/oracle/pins.txt
    python tools/oracle_releases.py --quick 0.7.1   # fewer cases of one; the page stays as it is

Each release is installed into an environment of its own under build/oracle, beside the torch and
hypothesis of the environment that runs this, and tests/oracle/releases.py runs in it. The exit
status is 1 if anything differs, a floor is missed or a changed row of the table of semantics goes
unnoticed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PINS = ROOT / "tests" / "oracle" / "pins.txt"
PAGE = ROOT / "docs" / "peft-releases.md"
BUILD = ROOT / "build" / "oracle"
# Enough that a mistake shows; the floors are those of the full run.
QUICK_CASES = 35
SHOWN = 5

Report = dict[str, Any]


def pins() -> dict[str, list[str]]:
    """The requirements of each PEFT release."""
    lines = PINS.read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {row[0].removeprefix("peft=="): row for row in rows}


def environment(release: str, requirements: list[str]) -> Path:
    """The Python of a release's environment, which is made if it is not there yet."""
    folder = BUILD / release
    python = folder / "bin" / "python"
    done = folder / "requirements.txt"
    wanted = "\n".join([sys.version, *requirements])
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    venv.EnvBuilder(clear=True, symlinks=True).create(folder)
    paths = {key: sysconfig.get_path(key) for key in ("purelib", "platlib")}
    inside = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # Behind the environment's own packages on the path, so that those win.
    outer = "\n".join(dict.fromkeys(paths.values()))
    Path(inside, "outer.pth").write_text(f"{outer}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command = [*pip, "--no-compile", "--disable-pip-version-check", *requirements]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"peft {release} could not be installed:\n{result.stderr}")
    done.write_text(wanted, encoding="utf-8")
    return python


def ask(release: str, requirements: list[str], options: argparse.Namespace) -> Report:
    """One release's report; what failed stands in ``failed``."""
    output = BUILD / f"{release}.json"
    output.unlink(missing_ok=True)
    try:
        python = environment(release, requirements)
    except (RuntimeError, subprocess.CalledProcessError) as exc:
        return {"peft": release, "failed": str(exc)}
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [python, "-m", "tests.oracle.releases", "--json", str(output)]
    command += ["--seed", str(options.seed)]
    command += ["--cases", str(options.cases)] if options.cases else []
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    variables |= {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    result = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if not output.exists():
        return {"peft": release, "failed": result.stderr[-2000:]}
    report: Report = json.loads(output.read_text(encoding="utf-8"))
    return report


def problems(report: Report, *, quick: bool) -> list[str]:
    """What is wrong with a release's report."""
    if "failed" in report:
        return [report["failed"]]
    found = []
    shown: Counter[str] = Counter()
    # The last difference of a feature is the shrunk one.
    for case in reversed(report["differing"]):
        shown[case["feature"]] += 1
        if shown[case["feature"]] == 1 and len(shown) <= SHOWN:
            where = f"{case['feature']}: {case['model']} {case['config']}"
            found.append(f"{where}\n      {'; '.join(case['differ'])}")
    if len(report["differing"]) > len(found):
        found.append(f"{len(report['differing'])} cases differ")
    if quick:
        return found
    for row in report["features"]:
        missed = [floor for floor in row["missed"] if floor not in row["excused"]]
        found += [f"{row['feature']} misses its floor of {floor}: {row}" for floor in missed]
    unseen = [row for row, seen in report["mutants"].items() if not seen]
    return found + [
        f"no case notices that {row} changed" for row in unseen if row not in report["unseen"]
    ]


def ratio(pair: list[int]) -> str:
    """``1,532/1,532``."""
    return f"{pair[0]:,}/{pair[1]:,}"


def page(reports: list[Report], seed: int) -> str:
    """The page of a full run."""
    total = sum(report["cases"] for report in reports)
    entries = sum(report["entries"] for report in reports)
    loaded = sum(report["loaded"] for report in reports)
    header = ["PEFT", "transformers", "models", "cases", "raising"]
    columns = list(reports[0]["columns"])
    header += [*columns, "undecided", "mutants"]
    lines = [
        "# The prediction against every PEFT release",
        "",
        "Made by `python tools/oracle_releases.py`, which installs each release of",
        "[tests/oracle/pins.txt](../tests/oracle/pins.txt) into an environment of its own, runs",
        "`get_peft_model` there on small models with generated configs, and compares what it does",
        f"with `lora_lint.injection.inject`. Seed {seed}; {len(reports)} releases,",
        f"{total:,} cases.",
        "",
        "Each column: cases that agree / cases compared. *verdict*: whether PEFT raises;",
        "*exception*: its class, when it is raised, and why nothing matched; *modules* to",
        "*scales*: the adapted modules and parameters, the modules and tokens trained beside them,",
        "the trainable and all parameters, and each module's rank, alpha and scale; *warnings*:",
        "about keys of patterns; *unmatched*: in a third of the cases that do not raise every",
        f"entry ({entries:,} of them) is also given to PEFT alone, to see whether it has an",
        f"effect. {loaded:,} cases are loaded from an adapter_config.json. *mutants*: rows of the",
        "[table of semantics](../lora_lint/injection/semantics.py) that changed at the release;",
        "where one is set back to its value before, a case must differ.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * 2 + "---:|" * (len(header) - 2),
    ]
    for report in reports:
        caught = [sum(report["mutants"].values()), len(report["mutants"])]
        cells = [report["peft"], report["transformers"], str(report["models"])]
        cells += [f"{report['cases']:,}", f"{report['raising']:,}"]
        cells += [ratio(report["columns"][name]) for name in columns]
        cells += [str(sum(report["undecided"].values())), ratio(caught) if caught[1] else "none"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_undecided(reports), *_exceptions(reports)])


def _undecided(reports: list[Report]) -> list[str]:
    reasons: Counter[str] = Counter()
    for report in reports:
        reasons.update(report["undecided"])
    if not reasons:
        return ["No case is undecided.", ""]
    rows = [f"| {reason} | {count} |" for reason, count in reasons.most_common()]
    return ["## Undecided", "", "| why | cases |", "|---|---:|", *rows, ""]


def _exceptions(reports: list[Report]) -> list[str]:
    lacking: dict[str, list[str]] = {}
    excused: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        for row in report["features"]:
            if not row["known"]:
                lacking.setdefault(row["feature"], []).append(report["peft"])
            for floor in row["missed"]:
                key = (row["feature"], floor, row["excused"].get(floor, ""))
                excused.setdefault(key, []).append(report["peft"])
    lines = [
        "## Features",
        "",
        "Every feature of [the generators](../tests/oracle/cases.py) has at least 150 cases for",
        "each release that knows it, a fifth of which raise, three tenths adapt some modules but",
        "not all, and at most one in a hundred is undecided; the cases that put features together",
        "may adapt less. For a release that lacks a feature's field 20 cases show that it is",
        "refused:",
        "",
        "| feature | releases without it |",
        "|---|---|",
        *(f"| {feature} | {_span(names)} |" for feature, names in lacking.items()),
        "",
    ]
    if excused:
        lines += ["Floors that can't be reached:", "", "| feature | floor | why | releases |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {' | '.join(key)} | {_span(names)} |" for key, names in excused.items()]
        lines += [""]
    unseen = [
        f"| {row} | {report['peft']} | {report['unseen'].get(row, '')} |"
        for report in reports
        for row, seen in report["mutants"].items()
        if not seen
    ]
    if unseen:
        lines += ["## Changes that no case can notice", "", "| row | release | why |"]
        lines += ["|---|---|---|", *unseen, ""]
    return lines


def _span(releases: list[str]) -> str:
    return releases[0] if len(releases) == 1 else f"{releases[0]} to {releases[-1]}"


def main() -> int:
    """Run the releases, tell what is wrong, write the page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("releases", nargs="*", help="all of tests/oracle/pins.txt if none")
    parser.add_argument("--quick", action="store_true", help="fewer cases, and no page")
    parser.add_argument("--cases", type=int, help="of each feature")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="releases at a time")
    options = parser.parse_args()
    known = pins()
    unknown = [name for name in options.releases if name not in known]
    if unknown:
        parser.error(f"not in {PINS.name}: {', '.join(unknown)}")
    # A page is only written of everything.
    full = not (options.quick or options.releases or options.cases)
    if options.quick and not options.cases:
        options.cases = QUICK_CASES
    # The newest first, since they matter most.
    wanted = (options.releases or list(known))[::-1]
    reports, wrong = [], 0
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(ask, name, known[name], options) for name in wanted]
        for number, future in enumerate(running, 1):
            report = future.result()
            reports.append(report)
            found = problems(report, quick=bool(options.cases))
            wrong += bool(found)
            state = "\n    ".join(["differs:", *found]) if found else "agrees"
            cases = f"{report.get('cases', 0):,} cases"
            print(f"[{number}/{len(running)}] peft {report['peft']}: {cases}, {state}", flush=True)
    if full and not any("failed" in report for report in reports):
        PAGE.write_text(page(reports[::-1], options.seed), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
