"""A long-lived process does not grow with the files that it lints."""

from __future__ import annotations

import gc
from pathlib import Path

from lora_lint import Options, lint_file

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "examples").iterdir()) + sorted((ROOT / "tests" / "dialects").glob("*.py"))


def test_nothing_is_kept_of_a_file_that_was_linted() -> None:
    def objects_after_a_round() -> int:
        for path in FILES:
            lint_file(path, Options(isolated=True, hook=True))
        gc.collect()
        return len(gc.get_objects())

    objects_after_a_round()  # facts and caches are read
    first = objects_after_a_round()
    assert objects_after_a_round() - first < 10
