"""Counts which scale lora_alpha / r the configs of a folder state.

    python tools/corpus_scales.py DIR

``DIR`` as for ``tools/corpus_errors.py``. The keys are found as text, under all their usual names,
so that files of every framework count; lora-lint's own readers have no part in it.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

from corpus_errors import written_files

RANK = re.compile(r'^\s*"?(?:lora_r|lora_rank|rank|r)"?\s*:\s*(\d+)', re.MULTILINE)
ALPHA = re.compile(r'^\s*"?(?:lora_alpha|alpha)"?\s*:\s*(\d+)', re.MULTILINE)


def main() -> None:
    """Print the scales, the most common first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args().corpus
    scales: Counter[float] = Counter()
    for name in written_files(corpus):
        text = (corpus / name).read_text(encoding="utf-8", errors="replace")
        rank, alpha = RANK.search(text), ALPHA.search(text)
        if rank and alpha and int(rank[1]):
            scales[int(alpha[1]) / int(rank[1])] += 1
    total = sum(scales.values())
    print(f"{total} configs state both")
    for scale, count in scales.most_common():
        print(f"{scale:g}: {count} ({100 * count / total:.0f} %)")


if __name__ == "__main__":
    main()
