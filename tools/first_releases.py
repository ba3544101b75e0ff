"""Which PEFT release supports what: ``docs/peft-versions.md``, with the measurements behind it.

    python tools/first_releases.py --environments DIR
    python tools/first_releases.py

The first command runs every claim in the environment of every release from 0.4.0 on, as
DIR/VERSION/bin/python, and writes what happened to ``tests/injection/first_releases.json``; both
write the page from that file. What the page says of older releases was read in their wheels and
comes from ``lora_lint/data/peft.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "injection" / "first_releases.json"
PAGE = ROOT / "docs" / "peft-versions.md"
sys.path.insert(0, str(ROOT))


class Claim(NamedTuple):
    """One question, its case, and how the answer is told.

    ``works`` names what must be in an answer that counts as support: ``adapted`` (something is),
    ``accepted``, ``known`` (accepted where unknown names are refused), ``warned``, ``error`` (it is
    refused), ``error: `` and a text of the told answer, or a text of what is told without an error.
    """

    section: str
    want: str
    config: dict[str, Any]
    model: str = "real:llama"
    works: str = "adapted"
    told: str = "counts"
    note: str = ""
    source: str = "kwargs"


TARGETS, LAYERS = "target_modules", "layers_to_transform, layers_pattern"
PATTERNS = "rank_pattern, alpha_pattern"
SAVE, INITS, REFUSED = "modules_to_save", "init_lora_weights", "What is checked"
VARIANTS, OTHER = "DoRA and rsLoRA", "Other fields"
Q = ["q_proj"]
TWO_TYPES = "real:llama-seq-cls"

CLAIMS = [
    # Targets
    Claim(
        TARGETS,
        "a string, as one regular expression",
        {"target_modules": r".*\.q_proj"},
        note="The whole name must match, so `q_proj` alone matches nothing. That string patterns "
        "need PEFT 0.11 is often said and is wrong: the annotation is "
        "`Optional[Union[List[str], str]]` since {target_modules: str}, and 0.11.0 changed nothing "
        "in matching.",
    ),
    Claim(
        TARGETS,
        "list entries match behind a dot only",
        {"target_modules": ["proj"]},
        works="error: not found",
        note="`proj` is no part of `self_attn.q_proj` that stands behind a dot. In 0.4.0 an entry "
        "matched any name that ends so.",
    ),
    Claim(
        TARGETS,
        "regular expressions inside a list",
        {"target_modules": ["self_attn.[qv]_proj"]},
        note="Only in 0.5.0. Before and after, use one string.",
    ),
    Claim(
        TARGETS,
        "`all-linear` on a model of transformers",
        {"target_modules": "all-linear"},
        note="Before, it is a pattern like any other, which matches nothing.",
    ),
    Claim(
        TARGETS, "`all-linear` on any torch model", {"target_modules": "all-linear"}, model="MLP"
    ),
    Claim(
        TARGETS,
        "`all-linear` spares the head of a classifier",
        {"target_modules": "all-linear", "task_type": "SEQ_CLS"},
        model=TWO_TYPES,
        works="21 modules adapted, 1 module",
        note="The model has 21 linear layers besides its head `score`.",
    ),
    Claim(
        TARGETS,
        "exclude_modules",
        {"target_modules": Q, "exclude_modules": ["layers.0.self_attn.q_proj"]},
    ),
    Claim(
        TARGETS,
        "target_parameters (weights that are no module, such as stacked experts)",
        {"target_parameters": ["lin0.weight"]},
        model="MlpUsingParameters",
    ),
    Claim(
        TARGETS,
        "experts of a mixture by their old names, with transformers 5",
        {"target_modules": ["w1", "w2", "w3"]},
        model="real:mixtral",
        works="with transformers 5",
        told="transformers",
        note="transformers 5 stacks the experts' weights, so that the modules w1, w2 and w3 are "
        "gone; PEFT turns the names into target_parameters. Each release was run with a "
        "transformers of its time.",
    ),
    Claim(
        TARGETS,
        "`all-linear` on a mixture, with transformers 5",
        {"target_modules": "all-linear"},
        model="real:mixtral",
        works="with transformers 5",
        told="transformers",
        note="In 0.19 the string is taken apart into letters.",
    ),
    # Variants
    Claim(
        VARIANTS,
        "rsLoRA (`use_rslora`)",
        {"target_modules": Q, "r": 16, "lora_alpha": 16, "use_rslora": True},
        told="scale",
    ),
    *(
        Claim(
            VARIANTS,
            f"DoRA on {kind}",
            {"target_modules": [name], "use_dora": True, "r": 4},
            model=model,
        )
        for kind, model, name in (
            ("nn.Linear", "MLP", "lin0"),
            ("Conv1D of transformers", "ModelEmbConv1D", "conv1d"),
            ("nn.Conv2d", "ModelConv2D", "conv2d"),
            ("nn.Embedding", "ModelEmbConv1D", "emb"),
            ("nn.Conv3d", "ModelConv3D", "conv3d"),
            ("nn.Conv1d", "ModelConv1DBigger", "conv1d"),
            ("nn.MultiheadAttention", "ModelMha", "mha"),
        )
    ),
    # Patterns
    Claim(
        PATTERNS,
        "rank_pattern",
        {"target_modules": ["lin0", "lin1"], "r": 2, "rank_pattern": {"lin1": 4}},
        model="MLP",
        told="ranks",
    ),
    Claim(
        PATTERNS,
        "alpha_pattern",
        {"target_modules": ["lin0", "lin1"], "lora_alpha": 2, "alpha_pattern": {"lin1": 4}},
        model="MLP",
        told="alphas",
    ),
    Claim(
        PATTERNS,
        "an alpha_pattern beside a broader rank_pattern",
        {
            "target_modules": ["k_proj"],
            "rank_pattern": {"k_proj": 4},
            "alpha_pattern": {"layers.1.self_attn.k_proj": 4},
        },
        model="attention",
        works="alpha 8, 4, 8, 8, 8",
        told="alphas",
        note="Up to 0.13 the first key of either field that matches is used for both, so that the "
        "alpha is never found.",
    ),
    Claim(
        PATTERNS,
        "keys that begin with `^`",
        {
            "target_modules": ["k_proj"],
            "r": 2,
            "rank_pattern": {"^layers.1.self_attn.k_proj": 4},
        },
        model="attention",
        works="rank 2, 4, 2, 2, 2",
        told="ranks",
        note="Before, such a key matches nothing, silently.",
    ),
    Claim(
        PATTERNS,
        "keys with `|`",
        {"target_modules": ["lin0", "lin1"], "r": 2, "rank_pattern": {"lin0|lin1": 4}},
        model="MLP",
        works="rank 4, 4",
        told="ranks",
        note="Before, what stands behind the `|` is looked for at the beginning of the full name.",
    ),
    Claim(
        PATTERNS,
        "a warning for keys that match nothing",
        {"target_modules": Q, "rank_pattern": {"no_such": 4}},
        works="warned",
    ),
    # Layers
    Claim(
        LAYERS,
        "layers_to_transform",
        {"target_modules": Q, "layers_to_transform": [1]},
    ),
    Claim(
        LAYERS,
        "numbers behind any name, without layers_pattern",
        {"target_modules": ["mix"], "layers_to_transform": [1]},
        model="odd names",
        note="Before, only layers, h, block, blocks and layer are known.",
    ),
    Claim(
        LAYERS,
        "the first number of a name counts, not the last",
        {"target_modules": ["up_proj"], "layers_to_transform": [1]},
        model="mixture",
        works="model.layers.1.mlp.experts.0.up_proj, model.layers.1.mlp.experts.1.up_proj",
        told="names",
        note="Which matters where experts are numbered too.",
    ),
    Claim(
        LAYERS,
        "layers_pattern where the layers stand at the root of the model",
        {"target_modules": ["k_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        model="attention",
    ),
    Claim(
        LAYERS,
        "`layers_to_transform=[]` means all layers",
        {"target_modules": Q, "layers_to_transform": []},
    ),
    Claim(
        LAYERS,
        "a full name in target_modules is adapted whatever layers_to_transform says",
        {"target_modules": [*Q, "lm_head"], "layers_to_transform": [1]},
        works="2 modules",
    ),
    Claim(
        LAYERS,
        "layers_pattern without layers_to_transform is refused",
        {"target_modules": Q, "layers_pattern": "layers"},
        works="error",
    ),
    Claim(
        LAYERS,
        "layers_to_transform beside a string in target_modules is refused",
        {"target_modules": r".*\.q_proj", "layers_to_transform": [1]},
        works="error",
    ),
    # Saved modules
    Claim(
        SAVE,
        "a module in both target_modules and modules_to_save",
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["v_proj"]},
        works="3 modules adapted, 3 modules",
        note="It is trained in full and gets no adapter; up to 0.6.1 it got both.",
    ),
    Claim(
        SAVE,
        "a string instead of a list is taken without an error",
        {"target_modules": Q, "modules_to_save": "lm_head"},
        works="accepted",
        note="It is never what was meant: each letter is taken for a name.",
    ),
    Claim(
        SAVE,
        "a list of modules is refused",
        {"target_modules": ["out"], "modules_to_save": ["layers"]},
        model="DeepMLP",
        works="error",
    ),
    # Inits
    *(
        Claim(
            INITS,
            f'"{init}"',
            {"target_modules": ["lin0"], "init_lora_weights": init, "r": 2},
            model="MLP",
            works="known",
            note=note,
        )
        for init, note in (
            ("gaussian", ""),
            ("pissa", ""),
            ("pissa_niter_4", ""),
            ("olora", ""),
            ("eva", ""),
            ("orthogonal", ""),
            ("lora_ga", "Accepted though the annotation does not list it."),
            ("mica", ""),
        )
    ),
    Claim(
        INITS,
        "an unknown name is refused",
        {"target_modules": ["lin0"], "init_lora_weights": "no_such"},
        model="MLP",
        works="error",
        note="Before, any text counts as true.",
    ),
    # Others
    Claim(
        OTHER,
        "trainable_token_indices",
        {"target_modules": Q, "trainable_token_indices": [1, 2]},
    ),
    Claim(
        OTHER,
        "lora_bias",
        {"target_modules": ["lin0"], "lora_bias": True},
        model="MLP",
    ),
    Claim(
        OTHER,
        "layer_replication",
        {"target_modules": Q, "layer_replication": [[0, 2], [1, 3]]},
    ),
    Claim(
        OTHER,
        "ensure_weight_tying, with modules_to_save",
        {"target_modules": Q, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        model="real:llama-tied",
        works="2 modules trained in full",
    ),
    Claim(
        OTHER,
        "ensure_weight_tying, with target_modules",
        {"target_modules": [*Q, "embed_tokens"], "ensure_weight_tying": True},
        model="real:llama-tied",
        works="5 modules",
    ),
    Claim(
        OTHER,
        "`bias: lora_only` trains the biases of adapted layers",
        {"target_modules": ["lin0"], "bias": "lora_only"},
        model="MLP",
        works="1 bias of the model trained",
        told="biases",
        note="From 0.7 to 0.9 it trains none, silently.",
    ),
    Claim(
        OTHER,
        "LoRA on nn.Conv3d",
        {"target_modules": ["conv3d"]},
        model="ModelConv3D",
    ),
    Claim(
        OTHER,
        "LoRA on nn.Conv1d",
        {"target_modules": ["conv1d"]},
        model="ModelConv1D",
    ),
    Claim(
        OTHER,
        "LoRA on nn.MultiheadAttention",
        {"target_modules": ["mha"]},
        model="ModelMha",
    ),
    # Checks
    Claim(
        REFUSED,
        "a task_type that does not exist is refused",
        {"target_modules": Q, "task_type": "CAUSAL"},
        works="error",
        note="Before, it silently means no task.",
    ),
    Claim(
        REFUSED,
        "unknown keys of an adapter_config.json: a warning, no error",
        {"target_modules": Q, "no_such_key": 1},
        works="warned",
        told="loads",
        source="adapter_config",
        note="Up to 0.5.0 they are dropped silently, as in 0.1.0 to 0.3.0 (read in the wheels); "
        "from 0.6 to 0.13 an adapter saved by a newer PEFT does not load.",
    ),
    Claim(
        REFUSED,
        "unknown keywords of LoraConfig are refused",
        {"target_modules": Q, "no_such_key": 1},
        works="error",
    ),
    Claim(
        REFUSED,
        "target_modules that match nothing raise NoMatchingPeftModuleError",
        {"target_modules": ["no_such"]},
        works="error: NoMatchingPeftModuleError",
        note="A ValueError too, so that old handlers still work.",
    ),
]


# The warnings that claims are about.
TOLD = re.compile("keys did not match|Unexpected keyword arguments")


# In the environment of a release
# ------------------------------------------------------------------------------------


def measure() -> list[dict[str, Any]]:
    """What the installed PEFT does with each claim's case."""
    import torch

    torch.set_num_threads(1)
    return [ask(claim) for claim in CLAIMS]


def ask(claim: Claim) -> dict[str, Any]:
    """What happens, as plain data."""
    import copy
    import warnings

    from peft import LoraConfig, get_peft_model

    from tests.injection.toy_models import build
    from tests.oracle.oracle import _read

    stage = "config"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = build(claim.model)
        except Exception:
            if claim.model.startswith("real:"):
                return {"missing": True}
            raise
        try:
            given = copy.deepcopy(claim.config)
            config = loaded(given) if claim.source == "adapter_config" else LoraConfig(**given)
            stage = "inject"
            peft_model = get_peft_model(model, config)
        except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
            return {"error": type(exc).__name__, "message": str(exc), "stage": stage}
        answer = _read(peft_model)
    trained = [n for n, p in peft_model.named_parameters() if p.requires_grad]
    found = {
        "modules": answer.modules,
        "parameters": answer.parameters,
        "saved": answer.saved,
        "tokens": answer.tokens,
        "trainable": answer.trainable,
        "total": answer.total,
        "scales": answer.scales,
        "biases": sum(n.endswith(".bias") and "lora_" not in n for n in trained),
        "warned": sorted({str(w.message) for w in caught if TOLD.search(str(w.message))}),
    }
    return json.loads(json.dumps({k: v for k, v in found.items() if v not in (None, [], {})}))


def loaded(config: dict[str, Any]) -> Any:
    """A config that PEFT reads from an adapter_config.json."""
    from peft import LoraConfig

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
        return LoraConfig.from_pretrained(folder)


# The answers in words
# ------------------------------------------------------------------------------------


ANY_NAME = "since any text counts as true"


def told(
    claim: Claim, answer: dict[str, Any], transformers: str, *, refuses_names: bool = True
) -> str:
    """What happened, in one sentence; ``refuses_names``: unknown names of init_lora_weights."""
    if "missing" in answer:
        return "not run, the model is newer than the transformers of that time"
    if "error" in answer:
        when = "when the config is made" if answer["stage"] == "config" else "in get_peft_model"
        text = f"{answer['error']} {when}: {message(answer)}"
    else:
        scales = list(answer.get("scales", {}).values())
        text = {
            "counts": counts,
            "transformers": counts,
            "scale": lambda _: f"scale {scales[0][2]:g}",
            "ranks": lambda _: f"rank {', '.join(str(r) for r, _, _ in scales)}",
            "alphas": lambda _: f"alpha {', '.join(str(a) for _, a, _ in scales)}",
            "names": lambda a: ", ".join(a["modules"]),
            "loads": lambda _: "it loads",
            "biases": lambda a: (
                f"{plural(a.get('biases', 0), 'bias', 'biases')} of the model trained"
            ),
        }[claim.told](answer)
        if claim.works == "known" and not refuses_names:
            text += f", {ANY_NAME}"
        if claim.works == "warned" and answer.get("warned"):
            text += f"; warning: {shortened(answer['warned'][0])}"
    if claim.told == "transformers":
        text = f"with transformers {transformers.partition('.')[0]}: {text}"
    return text


def message(answer: dict[str, Any]) -> str:
    """An error's message, as far as a reader needs it."""
    return shortened(answer["message"]) if answer["message"] else "no message"


def shortened(text: str) -> str:
    """The first sentence of a message, without what differs from run to run."""
    text = re.sub(r"\s+", " ", re.sub(r"^(LoraConfig\.)?__init__", "LoraConfig.__init__", text))
    text = re.split(r"(?<=[a-z`'])\. (?=[A-Z])", text)[0]
    text = re.sub(r" object at 0x\w+", "", text)
    text = re.sub(r"\{('[^{}]*')\}", lambda m: f"{{{', '.join(sorted(m[1].split(', ')))}}}", text)
    return text if len(text) <= 150 else text[:147] + "..."


def counts(answer: dict[str, Any]) -> str:
    """How many modules and parameters got what."""
    parts = []
    for name, one, many, what in (
        ("modules", "module", "modules", "adapted"),
        ("parameters", "parameter", "parameters", "adapted"),
        ("saved", "module", "modules", "trained in full"),
        ("tokens", "module", "modules", "with trained tokens"),
    ):
        if answer.get(name):
            parts.append(f"{plural(len(answer[name]), one, many)} {what}")
    return ", ".join(parts) or "nothing adapted"


def plural(count: int, one: str, many: str) -> str:
    """A count with its noun."""
    return f"{count} {one if count == 1 else many}"


def supported(claim: Claim, answer: dict[str, Any], text: str) -> bool:
    """Whether an answer counts as support."""
    if claim.works in ("adapted", "warned", "accepted", "known"):
        wanted = {
            "known": ANY_NAME not in text,
            "adapted": answer.get("modules") or answer.get("parameters"),
            "warned": answer.get("warned"),
            "accepted": "error" not in answer,
        }
        return not answer.keys() & {"error", "missing"} and bool(wanted[claim.works])
    if claim.works.startswith("error"):
        return "error" in answer and claim.works.partition("error: ")[2] in text
    return not answer.keys() & {"error", "missing"} and claim.works in text


# The page
# ------------------------------------------------------------------------------------


def spans(texts: list[tuple[str, str, bool]]) -> list[tuple[str, str, str, bool]]:
    """Runs of releases with the same answer: first, last, answer, whether it is support."""
    result: list[tuple[str, str, str, bool]] = []
    for release, text, works in texts:
        if result and result[-1][2] == text:
            result[-1] = (result[-1][0], release, text, works)
        else:
            result.append((release, release, text, works))
    return result


def first_of(runs: list[tuple[str, str, str, bool]]) -> str:
    """The releases that support something, in words."""
    oldest, newest = runs[0][0], runs[-1][1]
    works = [(first, last) for first, last, _, ok in runs if ok]
    joined: list[list[str]] = []
    for (first, last), at in zip(works, [i for i, run in enumerate(runs) if run[3]], strict=True):
        if joined and at and runs[at - 1][3]:
            joined[-1][1] = last
        else:
            joined.append([first, last])
    words = []
    for first, last in joined:
        if last == newest:
            words.append(f"{first} or earlier" if first == oldest else first)
        else:
            words.append(f"only {span(first, last)}")
    return ", then again ".join(words) or "none"


def span(first: str, last: str) -> str:
    """A range of releases."""
    return first if first == last else f"{first} to {last}"


def page(data: dict[str, Any], facts: dict[str, Any]) -> str:
    """The whole page."""
    releases = list(data["transformers"])
    runs = {}
    (names,) = [row for row in data["claims"] if "no_such" in row["config"].values()]
    for claim, row in zip(CLAIMS, data["claims"], strict=True):
        texts = []
        for release in releases:
            answer = at(row["answers"], releases, release)
            refuses = "error" in at(names["answers"], releases, release)
            transformers = data["transformers"][release]
            text = told(claim, answer, transformers, refuses_names=refuses)
            texts.append((release, text, supported(claim, answer, text)))
        runs[claim.want] = spans(texts)
    lines = [*head(releases), "", *summary(runs, facts), ""]
    lines += [*wrong_claims(facts), "", "## What was measured", ""]
    lines += [
        "One small case per claim, run in every release. The model is a Llama of 3 layers where",
        "nothing else is said; the toys are those of `tests/injection/toy_models.py`.",
        "",
    ]
    for section in dict.fromkeys(claim.section for claim in CLAIMS):
        lines += [f"### {section}", ""]
        for claim in CLAIMS:
            if claim.section == section:
                lines += details(claim, runs[claim.want], facts)
    lines += [*keywords(facts), "", *kinds(facts), "", *inits(facts)]
    return "\n".join(lines).rstrip() + "\n"


def head(releases: list[str]) -> list[str]:
    """What the page is."""
    tried = f"{len(releases)} releases from {releases[0]} to {releases[-1]}"
    return [
        "# Which PEFT version supports what",
        "",
        "The first release of [PEFT](https://github.com/huggingface/peft) that supports each LoRA",
        "feature, and what other releases do with it: an error, or nothing at all, silently.",
        f"All of this was run in each of the {tried};",
        "what is said of older ones was read in their wheels, and is marked so.",
        "",
        "`lora-lint` checks a config against the PEFT version in use, without torch. This page is",
        "written by `python tools/first_releases.py --environments DIR`, which asks every release;",
        "the answers are in `tests/injection/first_releases.json`.",
    ]


def summary(runs: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The table at the top."""
    lines = ["| feature | first release | what other releases do |", "|---|---|---|"]
    for claim in CLAIMS:
        found = runs[claim.want]
        first = first_of(found)
        if claim.want.startswith("a string, as one"):
            first = f"**{string_since(facts)}** (read in the wheel; measured from {found[0][0]})"
        elif first.endswith("or earlier"):
            first = older_first(claim, facts) or first
        others = lacks(found)
        if claim.want.startswith("a string, as one"):
            others.append("0.0.1 to 0.1.0: silently, the text is taken apart into letters")
        lines.append(f"| {cell(titled(claim))} | {first} | {cell('; '.join(others))} |")
    return lines


def titled(claim: Claim) -> str:
    """A claim's words with its field, where they leave it out."""
    fields = claim.section in (TARGETS, PATTERNS, LAYERS, SAVE, INITS)
    named = re.match(r"[a-z]+_[a-z_]+|an alpha_pattern|`[a-z]+_", claim.want)
    return f"{claim.section}: {claim.want}" if fields and not named else claim.want


def lacks(found: list[tuple[str, str, str, bool]]) -> list[str]:
    """What the releases without support do, at most three runs; the details have all."""
    without = [(a, b, brief(text), works) for a, b, text, works in found]
    runs: list[tuple[str, str, str, bool]] = []
    for first, last, text, works in without:
        if runs and runs[-1][2:] == (text, works):
            runs[-1] = (runs[-1][0], last, text, works)
        else:
            runs.append((first, last, text, works))
    aloud = re.compile("rror|not run|with transformers")
    told_ = [
        f"{span(first, last)}: {'' if aloud.search(text) else 'silently, '}{text}"
        for first, last, text, works in runs
        if not works
    ]
    return told_ if len(told_) <= 3 else [*told_[:3], "see below"]


def brief(text: str) -> str:
    """An answer for the table at the top."""
    if "unexpected keyword argument" in text:
        return "TypeError, the keyword is unknown"
    if "not found in the base model" in text:
        return "an error, nothing is found"
    text = text.replace(" in get_peft_model: no message", "").replace(" in get_peft_model", "")
    return text if len(text) < 90 else text[:87] + "..."


def wrong_claims(facts: dict[str, Any]) -> list[str]:
    """What is often said and is not so."""
    since = string_since(facts)
    return [
        "## Often said, and wrong",
        "",
        f"- *String patterns in target_modules need PEFT 0.11.* They work since {since};",
        "  0.11.0 changed nothing in matching. What is younger: `all-linear` is 0.8.0.",
        "- *Entries of a list may be regular expressions.* In 0.5.0 only; use one string.",
        '- *`target_modules="q_proj"` means every q_proj.* A string must match the whole name, so',
        '  it finds nothing in a usual model; `["q_proj"]` or `".*q_proj"` does.',
        "- *A wrong task_type is refused.* Only since 0.14.0; before, it silently means none.",
        "- *A key of rank_pattern that matches nothing is reported.* Only since 0.21.0.",
    ]


def older_first(claim: Claim, facts: dict[str, Any]) -> str | None:
    """The first release of the field that a claim is about, where it is older than measured."""
    name = claim.want.split()[0].strip("`")
    life = facts["fields"].get(name)
    return f"{life['since']} (read in the wheel)" if life else None


def string_since(facts: dict[str, Any]) -> str:
    """The first release whose target_modules may be a string."""
    changes = facts["fields"]["target_modules"]["changes"]
    return next(c["since"] for c in changes if "str]" in c["value"]["type"].replace("[str]", ""))


def details(claim: Claim, found: list[Any], facts: dict[str, Any]) -> list[str]:
    """One claim: its case and what each release did."""
    code = ", ".join(f"{k}={v!r}" for k, v in claim.config.items())
    how = f"`LoraConfig({code})`"
    if claim.source == "adapter_config":
        how = f"`LoraConfig.from_pretrained` on a file with {json.dumps(claim.config)}"
    note = claim.note.replace("{target_modules: str}", string_since(facts))
    lines = [f"**{claim.want}**: {how}" + ("" if claim.model == "real:llama" else on(claim))]
    lines += ["", "| releases | what happens |", "|---|---|"]
    lines += [f"| {span(first, last)} | {cell(text)} |" for first, last, text, _ in found]
    return [*lines, "", *([note, ""] if note else [])]


def on(claim: Claim) -> str:
    """The model of a claim, in words."""
    kind, _, name = claim.model.partition(":")
    return f" on {name}" if kind == "real" else f" on the toy `{claim.model}`"


def cell(text: str) -> str:
    """A text inside a table."""
    return text.replace("|", "\\|")


def keywords(facts: dict[str, Any]) -> list[str]:
    """All fields of LoraConfig by release."""
    lines = ["## Keywords of LoraConfig by release", "", "Read in the wheels of all releases.", ""]
    lines += ["| release | new | gone |", "|---|---|---|"]
    for version in facts["versions"]:
        new = [n for n, life in facts["fields"].items() if life["since"] == version]
        gone = [n for n, life in facts["fields"].items() if life["removed"] == version]
        if new or gone:
            lines.append(f"| {version} | {', '.join(new)} | {', '.join(gone)} |")
    return lines


def kinds(facts: dict[str, Any]) -> list[str]:
    """The kinds of layers by release."""
    lines = ["## Layers that LoRA can adapt, by release", "", "Read in the wheels.", ""]
    lines += ["| release | new |", "|---|---|"]
    for version in facts["versions"]:
        new = [n for n, life in facts["layer_kinds"].items() if life["since"] == version]
        if new:
            lines.append(f"| {version} | {', '.join(new)} |")
    return lines


def inits(facts: dict[str, Any]) -> list[str]:
    """The names of init_lora_weights by release."""
    lines = ["## Values of init_lora_weights by release", ""]
    since = facts["fields"]["init_lora_weights"]["since"]
    lines += [f"Read in the wheels. True and False: {since}.", "", "| release | new |", "|---|---|"]
    before: list[str] = []
    for change in facts["init_lora_weights"]:
        new = [f"`{name}`" for name in change["value"] if name not in before]
        before = change["value"]
        if new:
            lines.append(f"| {change['since']} | {', '.join(new)} |")
    return lines


def at(answers: list[dict[str, Any]], releases: list[str], release: str) -> dict[str, Any]:
    """The answer that holds at a release."""
    index = releases.index(release)
    return [a["answer"] for a in answers if releases.index(a["since"]) <= index][-1]


# The command
# ------------------------------------------------------------------------------------


def run_environments(folder: Path) -> dict[str, Any]:
    """Ask every release."""
    from tools.peft_tables import history, releases

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        answered = Path(scratch, "answered.json")
        for version in releases(folder):
            python = folder / version / "bin" / "python"
            command = [str(python), __file__, "--measure", str(answered)]
            subprocess.run(command, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
            found[version] = json.loads(answered.read_text())
            print(f"peft {version}", flush=True)
    rows = [
        {
            "table": "first releases",
            "name": claim.want,
            "model": claim.model,
            "config": claim.config,
            "source": claim.source,
            "answers": history({v: found[v]["answers"][number] for v in found}),
        }
        for number, claim in enumerate(CLAIMS)
    ]
    return {"transformers": {v: found[v]["transformers"] for v in found}, "claims": rows}


def main() -> None:
    """Measure, if asked to, and write the page."""
    if sys.argv[1:2] == ["--measure"]:
        from importlib.metadata import version

        result = {"transformers": version("transformers"), "answers": measure()}
        Path(sys.argv[2]).write_text(json.dumps(result))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, help="folder with a venv per PEFT release")
    options = parser.parse_args()
    if options.environments:
        data = run_environments(options.environments)
        lines = ",\n  ".join(json.dumps(row) for row in data["claims"])
        head_ = json.dumps({"transformers": data["transformers"]}, indent=1)[:-2]
        DATA.write_text(f'{head_},\n "claims": [\n  {lines}\n ]\n}}\n')
    from lora_lint.facts import peft_facts

    PAGE.write_text(page(json.loads(DATA.read_text()), peft_facts()))
    print(f"{len(CLAIMS)} claims in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
