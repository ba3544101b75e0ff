"""EM, TR: tokens that the base model does not have, rows that are trained, the token that ends."""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING, Final

from lora_lint.checks.registry import check
from lora_lint.diagnostics import Finding, Note, Set, Span, Unset, Wish
from lora_lint.documents.document import BOM
from lora_lint.injection.matching import EntrySet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

# Other ways of setting a pad token.
_OTHER_PADS: Final = ("pad_token=", "add_special_tokens", '"pad_token"', "'pad_token'")
_COLLATOR: Final = "DataCollatorForLanguageModeling"
_PADDING: Final = re.compile(r"(.+)\.pad_token = \1\.eos_token")
_LINE_ENDS: Final = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
# What embeddings are called where the model's own name for them is not known.
_EMBEDDINGS: Final = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")


@check("EM805")
def new_tokens_not_trained(subject: RecipeSubject) -> Iterator[Finding]:
    """Tokens are added, and the rows that stand for them are never trained."""
    tokens = subject.value("tokens")
    listed = list(tokens) if isinstance(tokens, dict | list) else []
    added = [token for token in listed if isinstance(token, str)]
    if not added or len(added) != len(listed) or _trains_embeddings(subject):
        return
    known = subject.tokenizer
    new = [token for token in added if known is None or not known.has(token)]
    if not new:
        return
    shown = ", ".join(f"`{token}`" for token in new[:3]) + (" and others" if len(new) > 3 else "")
    single = len(new) == 1
    yield Finding(
        f"{shown} {'is' if single else 'are'} added"
        f"{'' if known else ', if the vocabulary lacks ' + ('it' if single else 'them')}, and the "
        "embeddings stay frozen",
        field="tokens",
        severity=None if known is not None else "warning",
        help="their rows keep their first values: nothing is learned about them; "
        "lora_modules_to_save or peft_trainable_token_indices trains them",
        wishes=_wishes(subject),
    )


def _wishes(subject: RecipeSubject) -> tuple[Wish, ...]:
    tree = subject.tree
    names = [tree.facts.get(f"{end}put_embeddings") for end in ("in", "out")] if tree else []
    leaves = [name.rpartition(".")[2] for name in names if isinstance(name, str)]
    saved = subject.value("modules_to_save")
    saved = [] if saved is None else saved
    if len(leaves) != 2 or not isinstance(saved, list):
        return ()
    value = list(dict.fromkeys([*saved, *leaves]))
    return (Wish(f"modules_to_save: [{', '.join(value)}]", (Set("modules_to_save", value),)),)


def _trains_embeddings(subject: RecipeSubject) -> bool:
    """Whether anything trains the input embeddings, as far as the file says."""
    if subject.value("trainable_token_indices") not in (None, [], {}):
        return True
    name = subject.tree.facts.get("input_embeddings") if subject.tree is not None else None
    names = [name] if isinstance(name, str) else list(_EMBEDDINGS)
    for field in ("modules_to_save", "target_modules"):
        value = subject.value(field)
        if isinstance(value, list):
            entries = EntrySet([entry for entry in value if isinstance(entry, str)])
            if any(entries.has(name) for name in names):
                return True
        elif value is not None and value != "all-linear":
            return True  # a regex, or not static
    return False


@check("EM808")
def token_indices_with_saved_embedding(subject: RecipeSubject) -> Iterator[Finding]:
    """One module is to be trained in full and by single rows."""
    both = [name for name in subject.injection.saved if name in subject.injection.tokens]
    if not both:
        return
    leaf = both[0].rpartition(".")[2]
    yield Finding(
        f"trainable_token_indices and modules_to_save both train `{leaf}`",
        field="trainable_token_indices",
        notes=(Note("", "modules_to_save"),),
        help='the first forward pass stops with "TrainableTokensLayer wraps an unknown layer type"',
        wishes=(Wish("drop trainable_token_indices", (Unset("trainable_token_indices"),)),),
    )


@check("TR617")
def pad_token_is_eos(subject: RecipeSubject) -> Iterator[Finding]:
    """The collator takes the token that ends a text for padding, and leaves it out of the loss."""
    text = subject.document.text
    if subject.document.format != "python" or _COLLATOR not in text or text[0] == BOM:
        return
    if text.count("pad_token =") != 1 or any(word in text for word in _OTHER_PADS):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that Python only tolerates
        tree = ast.parse(text)  # it has parsed before
    padding, collator = _padding_with_eos(tree.body), _collator(tree)
    if padding is not None and collator is not None:
        yield Finding(
            "the pad token is the end of text: DataCollatorForLanguageModeling leaves both out of "
            "the loss, and the model never learns to stop",
            span=_span(padding, text),
            notes=(Note("", span=_span(collator, text)),),
            help="give padding a token of its own, or pad labels with -100 in another collator",
        )


def _padding_with_eos(body: list[ast.stmt]) -> ast.stmt | None:
    """A statement ``tokenizer.pad_token = tokenizer.eos_token`` that is run on every way."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.With):
            found = _padding_with_eos(node.body)
            if found is not None:
                return found
        if isinstance(node, ast.Assign) and _PADDING.fullmatch(ast.unparse(node)):
            return node
    return None


def _collator(tree: ast.Module) -> ast.Call | None:
    """The only call of transformers' collator, where it is for causal language models."""
    imported = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "transformers"
        and any(name.name == _COLLATOR and name.asname is None for name in node.names)
        for node in ast.walk(tree)
    )
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == (_COLLATOR if imported else f"transformers.{_COLLATOR}")
    ]
    if len(found) != 1:
        return None
    masked = next((key.value for key in found[0].keywords if key.arg == "mlm"), None)
    return found[0] if isinstance(masked, ast.Constant) and masked.value is False else None


def _span(node: ast.stmt | ast.Call, text: str) -> Span:
    """The place of a node, up to the end of its first line; ``ast`` counts UTF-8 bytes."""
    lines = _LINE_ENDS.split(text)
    line = lines[node.lineno - 1].encode()
    end = node.end_col_offset if node.end_lineno == node.lineno else len(line.rstrip())
    start = sum(map(len, lines[: node.lineno - 1])) + len(line[: node.col_offset].decode())
    return Span(start, start + len(line[node.col_offset : end].decode()))
