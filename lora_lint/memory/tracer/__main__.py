"""The subprocess: a ``Request`` as JSON on stdin, what was traced or why not as JSON on stdout."""

from __future__ import annotations

import json
import sys
import warnings


def main() -> None:
    """Trace one run."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the libraries print is not the answer
    given = json.load(sys.stdin)
    warnings.filterwarnings("ignore")
    try:
        from lora_lint.memory.tracer import quantized

        quantized.stand_in()
        from lora_lint.memory.tracer.depth import trace_deep
        from lora_lint.memory.tracer.step import Request

        request = Request(**{**given, "capability": tuple(given.get("capability", (8, 0)))})
        traced = trace_deep(request)
        answer = {**traced._asdict(), "site": traced.site, "peak": traced.peak}
    except Exception as exc:  # noqa: BLE001 - any class of transformers may raise anything
        answer = {"error": f"{type(exc).__name__}: {exc}"[:500]}
    json.dump(answer, answers)


if __name__ == "__main__":
    main()
