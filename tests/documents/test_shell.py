"""Shell scripts: what the programs receive, and edits that change nothing else."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lora_lint import documents, suppressions
from lora_lint.diagnostics import Diagnostic
from lora_lint.documents import shell
from lora_lint.documents.document import NotEditable
from lora_lint.documents.tree import Entry, Node
from lora_lint.fixes import apply_edits
from lora_lint.recipe import UNKNOWN


def parse(text: str) -> Any:
    document = shell.parse("run.sh", text)
    assert document.problem is None
    return document


def command(text: str, number: int = 0) -> Node:
    return parse(text).parts[number].node


def notes(text: str) -> list[str | None]:
    return [part.node.note for part in parse(text).parts]


def values(node: Node) -> list[tuple[object, object]]:
    return [(entry.key, entry.node.plain()) for entry in node.entries]


# What is run -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "note", "launchers"),
    [
        ("python train.py --lora_r 8", "train.py", ["python"]),
        ("python3 -u examples/run.py --lora_r 8", "examples/run.py", ["python"]),
        ("python -m a.b --lora_r 8", "a.b", ["python"]),
        ("./train.py --lora_r 8", "./train.py", []),
        ("trl sft --model x", "trl sft", []),
        ("/opt/env/bin/trl sft --model x", "trl sft", []),
        ("llamafactory-cli train a.yaml", "llamafactory-cli train", []),
        ("FORCE_TORCHRUN=1 llamafactory-cli train a.yaml", "llamafactory-cli train", ["env"]),
        ("swift sft --model x", "swift sft", []),
        ("megatron sft --model x", "megatron sft", []),
        ("litgpt finetune_lora m --lora_r 8", "litgpt finetune_lora", []),
        ("litgpt finetune lora m --lora_r 8", "litgpt finetune lora", []),
        ("mlx_lm.lora --model m", "mlx_lm.lora", []),
        ("python -m mlx_lm.lora --model m", "mlx_lm.lora", ["python"]),
        ("python -m mlx_lm lora --model m", "mlx_lm lora", ["python"]),
        ("axolotl train a.yaml", "axolotl train", []),
        ("accelerate launch -m axolotl.cli.train a.yaml", "axolotl.cli.train",
         ["accelerate launch"]),
        ("accelerate launch --multi_gpu --num_processes 4 t.py --lora_r 8", "t.py",
         ["accelerate launch"]),
        ("accelerate launch --mixed-precision=bf16 t.py --lora_r 8", "t.py", ["accelerate launch"]),
        ("torchrun --standalone --nproc_per_node 4 t.py --lora_r 8", "t.py", ["torchrun"]),
        ("torchrun --nnodes=1 -m verl.trainer.main_ppo a.lora_rank=8", "verl.trainer.main_ppo",
         ["torchrun"]),
        ("python -m torch.distributed.run --nproc-per-node 2 t.py --lora_r 8", "t.py",
         ["python", "torchrun"]),
        ("deepspeed --include localhost:0 t.py --lora_r 8", "t.py", ["deepspeed"]),
        ("deepspeed --module openrlhf.cli.train_sft --x 1", "openrlhf.cli.train_sft",
         ["deepspeed"]),
        ("tune run --nproc_per_node 2 lora_finetune --config c", "tune run", ["torchrun"]),
        ("xtuner train c --deepspeed d", "xtuner train", []),
        ("oumi train -c c.yaml", "oumi train", []),
        ("oumi distributed torchrun -m oumi train -c c.yaml", "oumi train", ["torchrun"]),
        ("autotrain llm --train", "autotrain llm", []),
        ("autotrain --config c.yaml", "autotrain", []),
        ("nohup time uv run --with x python t.py --lora_r 8 &", "t.py",
         ["nohup", "time", "uv run", "python"]),
        ("poetry run python t.py --lora_r 8", "t.py", ["poetry run", "python"]),
        ("srun -N 1 --gres=gpu:1 -u python t.py --lora_r 8", "t.py", ["srun", "python"]),
        ("sudo -E env A=1 python t.py --lora_r 8", "t.py", ["sudo", "env", "python"]),
        ("timeout 5h python t.py --lora_r 8", "t.py", ["timeout", "python"]),
        ("ray job submit --address x -- python3 -m a.b --lora_r 8", "a.b",
         ["ray job submit", "python"]),
        ("$PYTHON t.py --lora_r 8", "t.py", []),
        ("$LAUNCHER --x 1 t.py --lora_r 8", "t.py", []),
        ("python train_lora.py --rank 8", "train_lora.py", ["python"]),
        ("python t.py --tuner_type lora", "t.py", ["python"]),
    ],
)  # fmt: skip
def test_what_is_run_behind_its_launchers(line: str, note: str, launchers: list[str]) -> None:
    document = parse(line + "\n")
    assert [part.node.note for part in document.parts] == [note]
    assert [node.note for node in document.parts[0].launchers] == launchers


@pytest.mark.parametrize(
    "line",
    [
        "pip install peft",
        "cd lora",
        "export OUT=lora",
        "huggingface-cli download x --local-dir lora --lora 1",
        "grep -r --include lora .",
        "python eval.py --batch 8",
        "python -c 'lora' --lora_r 8",
        "cat <<EOF > a.yaml\npython t.py --lora_r 8\nEOF",
        "# python t.py --lora_r 8",
        "python t.py --seed 1 \\ \n--lora_r 8 --lora_alpha 16",  # the blank ends the command
    ],
)
def test_other_commands_are_no_parts(line: str) -> None:
    assert notes(line + "\n") == []


def test_the_options_of_launchers_stay_available() -> None:
    text = "A=1 accelerate launch --config-file a.yaml --use_deepspeed -m a.b --lora_r 8\n"
    part = parse(text).parts[0]
    found = shell.launcher(part, "accelerate launch")
    assert found is not None
    assert values(found) == [("config_file", "a.yaml"), ("use_deepspeed", True), ("module", True)]
    env = shell.launcher(part, "env")
    assert env is not None
    assert values(env) == [("A", "1")]
    assert shell.launcher(part, "torchrun") is None


# Options -----------------------------------------------------------------------------------------


def test_the_forms_of_options() -> None:
    text = (
        "python t.py base.yaml --lora_r 8 --lora-alpha=16 --target_modules q v --use_peft -x 1"
        " --lr -1e-4 --off=-2 ++a.b=8 +c=9 d=7 ~e.f -- last\n"
    )
    document = parse(text)
    node = document.parts[0].node
    assert values(node) == [
        (0, "base.yaml"),
        ("lora_r", "8"),
        ("lora-alpha", "16"),
        ("target_modules", ["q", "v"]),
        ("use_peft", True),
        ("x", "1"),
        ("lr", "-1e-4"),
        ("off", "-2"),
        ("a.b", "8"),
        ("c", "9"),
        ("d", "7"),
        ("~e.f", True),
        (1, "last"),
    ]
    keys = [text[slice(*entry.key_span)] for entry in node.entries if isinstance(entry.key, str)]
    assert keys == [entry.key for entry in node.entries if isinstance(entry.key, str)]
    prefixes = [shell.prefix(text, e) for e in node.entries if isinstance(e.key, str)]
    assert prefixes == ["--"] * 4 + ["-", "--", "--", "++", "+", "", ""]
    assert [text[slice(*entry.node.span)] for entry in node.entries][:4] == [
        "base.yaml", "8", "16", "q v",
    ]  # fmt: skip


def test_the_last_of_a_repeated_option_counts() -> None:
    node = command("trl sft --lora_r 8 --lora_r 16\n")
    assert len(node.entries) == 2
    found = node.get("lora_r")
    assert found is not None
    assert found.value == "16"


def test_an_override_behind_an_option_with_a_value_is_one() -> None:
    assert values(command("tune run r --config c batch=8\n")) == [
        (0, "r"), ("config", "c"), ("batch", "8"),
    ]  # fmt: skip


def test_places_behind_characters_of_several_bytes_and_windows_line_ends() -> None:
    text = "\ufeff# é🙂\r\ntrl sft --name 'é🙂' \\\r\n  --lora_r 8\r\n"
    node = command(text)
    assert values(node) == [("name", "é🙂"), ("lora_r", "8")]
    assert [text[slice(*entry.node.span)] for entry in node.entries] == ["'é🙂'", "8"]
    assert [c.text for c in parse(text).comments()] == [" é🙂"]


def test_a_comment_ends_a_continued_command() -> None:
    text = "trl sft --lora_r 8 \\\n  # --lora_alpha 16 \\\n  --lora_dropout 0\n"
    assert values(command(text)) == [("lora_r", "8")]


def test_a_broken_part_does_not_lose_the_rest() -> None:
    text = "trl sft --x ( --lora_r 8\nif\ntrl dpo --lora_r 8\n"
    assert "trl dpo" in notes(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000 + "trl sft --lora_r 8",
        "$(" * 20_000,
        "if true; then\n" * 3_000 + "trl sft --lora_r 8\n" + "fi\n" * 3_000,
        "trl sft --lora_r " + '"$(' * 3_000,
        "trl sft --lora_r " + "${A:-" * 3_000 + "}" * 3_000,
        "A=(" * 5_000,
        "cat <<A\n" * 2_000,
        "\x01\x02" * 1000,
        "A=$A$A$A\n" * 200 + "trl sft $A --lora_r $A\n",
        "A0=x\n" + "".join(f'A{i + 1}="$A{i} $A{i}"\n' for i in range(40)) + "trl sft --a $A40\n",
    ],
)
def test_strange_texts_do_no_harm(text: str) -> None:
    shell.parse("run.sh", text)


def test_a_text_that_is_too_long_is_said_to_be() -> None:
    document = shell.parse("run.sh", "trl sft --lora_r 8\n" * 100_000)
    assert document.problem is not None
    assert document.parts == []


# Variables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "word", "value"),
    [
        ("R=8", "$R", "8"),
        ("export R=8", "${R}", "8"),
        ("R='8'", '"$R"', "8"),
        ("declare -x R=8", "$R", "8"),
        ("A=8; R=$A", "$R", "8"),
        ("R=8 && true", "$R", "8"),
        ("", "${R:-8}", "8"),
        ("R=${R:-8}", "$R", "8"),
        ("R=${1:-8}", "$R", "8"),
        ("A=b", "out-$A", "out-b"),
        ("R=8; R=9", "$R", UNKNOWN),
        ("if true; then R=8; fi", "$R", UNKNOWN),
        ("f() { R=8; }", "$R", UNKNOWN),
        ("R=8; f() { R=9; }; f", "$R", UNKNOWN),
        ("R=8; read R", "$R", UNKNOWN),
        ("R=8; source other.sh", "$R", UNKNOWN),
        ("R=8; source venv/bin/activate", "$R", "8"),
        ("R=8; eval $X", "$R", UNKNOWN),
        ("R=8; X='R=9'; eval $X", "$R", UNKNOWN),
        ("R=8; X='ls y'; eval $X", "$R", "8"),
        ('A=1; R=8; B="$A $R"', "${B#1 }", UNKNOWN),
        ("R=8; ((R++))", "$R", UNKNOWN),
        ("R=8; N=$((R * 2))", "$R", "8"),
        ("R=8; N=$((R <= 2 || R != 3))", "$R", "8"),
        ("R=8; N=$((R++))", "$R", UNKNOWN),
        ("R=8; N=$((R <<= 2))", "$R", UNKNOWN),
        ("(R=8)", "$R", UNKNOWN),
        ("R=8 | true", "$R", UNKNOWN),
        ("R=8 &", "$R", UNKNOWN),
        ("true || R=8", "$R", UNKNOWN),
        ("R=8 python x.py", "$R", UNKNOWN),
        ("R=$(date)", "$R", UNKNOWN),
        ("", "$R", UNKNOWN),
        ("", "$1", UNKNOWN),
        ("", "$(cat r)", UNKNOWN),
        ("", "`cat r`", UNKNOWN),
        ("", "$((4+4))", UNKNOWN),
        ("R=8", "${R%0}", UNKNOWN),
        ("", "*.txt", UNKNOWN),
        ("", "{8,16}", UNKNOWN),
        ("", "~/x", UNKNOWN),
    ],
)
def test_a_variable_is_known_where_it_is_set_once_and_for_certain(
    before: str, word: str, value: object
) -> None:
    node = command(f"{before}\ntrl sft --lora_r {word}\nR=7\n" if value is UNKNOWN and not before
                   else f"{before}\ntrl sft --lora_r {word}\n").get("lora_r")  # fmt: skip
    assert node is not None
    assert node.plain() == value
    if value is UNKNOWN:
        assert node.note
        assert node.locked


def test_a_loop_gives_no_single_value() -> None:
    node = command("for r in 8 16; do trl sft --lora_r $r; done\n").get("lora_r")
    assert node is not None
    assert node.note == "`r` takes several values in a loop"


def test_a_default_says_so() -> None:
    node = command("trl sft --lora_r ${R:-8}\n").get("lora_r")
    assert node is not None
    assert node.origin == "default"


def test_arrays_and_strings_of_options_are_expanded() -> None:
    text = (
        "ARGS=(--lora_r 8  # rank\n  --name 'a b')\nARGS+=(--use_peft)\n"
        'OPTS="--lr 1e-4 \\\n  --seed 1"\ntrl sft "${ARGS[@]}" $OPTS --x "$@"\n'
    )
    document = parse(text)
    node = document.parts[0].node
    assert values(node) == [
        ("lora_r", "8"), ("name", "a b"), ("use_peft", True), ("lr", "1e-4"), ("seed", "1"),
        ("x", True), (None, UNKNOWN),
    ]  # fmt: skip
    assert shell.holds_more(node)
    assert [text[slice(*entry.node.span)] for entry in node.entries[:5]] == [
        "8", "'a b'", "use_peft", "1e-4", "1",
    ]  # fmt: skip


def test_a_command_kept_in_a_variable() -> None:
    text = (
        'RUN="torchrun --nnodes 1"\nCMD="$RUN t.py --lora_r 8"\n{}\ntrl sft --x ${{RUN%x}} $RUN\n'
    )
    for line in ("$CMD", "eval $CMD", 'eval "$CMD"'):
        part = parse(text.format(line)).parts[0]
        assert part.node.note == "t.py"
        assert values(part.node) == [("lora_r", "8")]
        assert shell.launcher(part, "torchrun") is not None
    assert notes("CMD=\"trl sft --name 'a b'\"\neval $CMD\n") == []


def test_a_script_whose_folder_is_not_known() -> None:
    assert notes('python "$ROOT/x/train.py" --lora_r 8\n') == ["x/train.py"]
    assert notes("$ROOT/train.py --lora_r 8\n") == ["train.py"]


def test_an_array_that_grows_under_a_condition_may_hold_more() -> None:
    text = 'A=(--lora_r 8)\nif x; then A+=(--y 1); fi\ntrl sft "${A[@]}"\n'
    node = command(text)
    assert values(node) == [("lora_r", "8"), (None, UNKNOWN)]
    assert not shell.holds_more(command('A=(--lora_r 8)\ntrl sft "${A[@]}"\n'))


# Against Bash itself -----------------------------------------------------------------------------

ATOMS = [
    "--lora_r", "8", "'a b'", '"a b"', "\"x\"'y'z", "a\\ b", '\\"q', "$R", "${R}", '"$R"',
    "${R:-9}", '"${S:-d e}"', "${S:-d}", "$S", '"$S"', "$Q", '"$Q"', '"${A[@]}"', "${A[@]}", "$A",
    "x$R", "--k=$R", '--k="$R y"', "--k=$Q", '{"a":1}', "'{\"a\": 1}'", "{a,b}", "*.zz", "[a,b]",
    "k=[a,b]", "$(echo 1)", "`echo 2`", "$((1+2))", "~", "~/x", "k=~/x", "#c", "a#b", "''", '""',
    "\\\n", "é", '"é$R"', "$'a\\tb'", '$"t"', "-1", "a=b", "${R%8}", "${#R}", "\\;", '"\\$R"',
    '"\\n"', "'\\n'", "\\\\", "${A[0]}", "$1", '"$@"', "a{b", "}", "--x={a}", "$T", '"$T"', "[",
    "x]", '"a"*', "a\\*", "--z=*", "$G", '"a\nb"', 'a"b\\\nc"d', "> f", "2>&1", "< /dev/null",
    "$U", '"p $(echo "q r") s"', "\\$R", "@x",
]  # fmt: skip
STATEMENTS = [
    "R=8", "export R=8", "R='8'", "Q='a b'", 'Q="--x 1 --y $R"', "A=(1 'b c' $R)", "A+=(z)",
    "A=(--p 3 # c\n q)", "S=", 'T="a\n b"', "G='*.q'", "U=$R", 'U="$R $Q"',
    "if true; then R=9; fi", "f() { R=7; }", "f", "R=1 true", "true && R=5", "read R <<< 3",
    "unset R", "(R=4)", "R=3 &", "R=$((1+1))", "R=$(echo hi)", ": ${S:=zz}", "printf -v R hi",
    "Q=$((R==2))", "Q=$((R-=2))",
    "declare R=2", "eval R=11", "let R=5", "((R=6))", "R+=1", "Q=$Q", "R=${R:-12}", "S=${S:-x y}",
    "case a in a) R=3;; esac", "{ R=10; }", "set -- a b", "IFS=,", "true || R=5",
    "if [ -z $R ]; then Q=3; else :; fi",
]  # fmt: skip
STUB = "exec 7>&1; trl() { printf '%s\\0' \"$@\" >&7; printf '\\1\\0' >&7; }\n"


def received(script: str, folder: str) -> list[list[str]]:
    """The words that Bash gives each `trl` of a script."""
    done = subprocess.run(
        ["bash", "-c", STUB + script],
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
        env={"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assume(b"syntax" not in done.stderr and b"unexpected" not in done.stderr)
    calls = done.stdout.decode().split("\1\0")[:-1]
    return [call.split("\0")[:-1] for call in calls]


def agrees(words: list[str], options: list[Entry]) -> bool:
    """Whether words can be what these entries say; unknown ones stand for any."""
    if not options:
        return not words
    entry, rest = options[0], options[1:]
    if entry.key is None:
        return any(agrees(words[count:], rest) for count in range(len(words) + 1))
    if not words:
        return False
    parts = [entry.node] if entry.node.kind != "sequence" else entry.node.items
    if isinstance(entry.key, int):
        return _values(words, parts, rest)
    name, equals, value = words[0].lstrip("+-").partition("=")
    if entry.node.style == "flag":
        return words[0].lstrip("-") == entry.key and agrees(words[1:], rest)
    if equals and name == entry.key and len(parts) == 1:
        known = parts[0].kind == "unknown" or parts[0].value == value
        if known and agrees(words[1:], rest):
            return True
    return words[0].lstrip("-") == entry.key and _values(words[1:], parts, rest)


def _values(words: list[str], parts: list[Node], rest: list[Entry]) -> bool:
    if not parts:
        return agrees(words, rest)
    if parts[0].kind == "unknown":  # an unquoted one may be several words, or none
        return any(_values(words[n:], parts[1:], rest) for n in range(len(words) + 1))
    return bool(words) and words[0] == parts[0].value and _values(words[1:], parts[1:], rest)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@settings(max_examples=80, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    st.lists(st.sampled_from(STATEMENTS), max_size=4),
    st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5),
    st.sampled_from(["", "", "if true; then {}\nfi", "g() {{ {}\n}}; g", "( {}\n)", "{{ {}\n}}"]),
    st.lists(st.sampled_from(STATEMENTS), max_size=1),
)
def test_what_is_known_is_what_bash_passes(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[str],
    words: list[str],
    around: str,
    behind: list[str],
) -> None:
    line = "trl sft " + " ".join(words)
    text = "\n".join([*before, around.format(line) if around else line, *behind, ""])
    calls = received(text, str(tmp_path_factory.mktemp("empty")))
    document = parse(text)
    assume(len(calls) == 1 and len(document.parts) == 1)
    passed = [word for word in calls[0][1:] if word != "--"]
    assert agrees(passed, document.parts[0].node.entries)


# Edits -------------------------------------------------------------------------------------------


def edited(text: str, key: str, value: object) -> str:
    document = parse(text)
    node = document.parts[0].node.get(key)
    return apply_edits(text, document.replace(node, value))


@pytest.mark.parametrize(
    ("text", "value", "after"),
    [
        ("trl sft --k 8 --z", 16, "trl sft --k 16 --z"),
        ("trl sft --k=8 --z", 16, "trl sft --k=16 --z"),
        ("trl sft --k='8' --z", 16, "trl sft --k='16' --z"),
        ("trl sft '--k=8' --z", "a b", "trl sft '--k=a b' --z"),
        ('trl sft "--k=8" --z', 'a"$', 'trl sft "--k=a\\"\\$" --z'),
        ('trl sft --k "8" --z', 16, 'trl sft --k "16" --z'),
        ("trl sft --k 8 --z", "a b", "trl sft --k 'a b' --z"),
        ("trl sft --k 8 --z", "it's", 'trl sft --k "it\'s" --z'),
        ("trl sft --k 8 --z", "$x", "trl sft --k '$x' --z"),
        ("trl sft a.k=1 k=8", 9, "trl sft a.k=1 k=9"),
        ("trl sft --k 8 9 \\\n  7 --z", ["8", "7"], "trl sft --k 8 \\\n  7 --z"),
        ("trl sft --k 8 9 --z", ["8", "9", "x"], "trl sft --k 8 9 x --z"),
        ("trl sft --k 8 --z", ["8", "x"], "trl sft --k 8 x --z"),
        ("R=8\ntrl sft --k $R --z", 16, "R=16\ntrl sft --k $R --z"),
        ('R="8"\ntrl sft --k "$R" --z', "a b", 'R="a b"\ntrl sft --k "$R" --z'),
        ("trl sft --k ${R:-8} --z", 16, "trl sft --k ${R:-16} --z"),
        ("R=${R:-8}\ntrl sft --k=$R --z", 16, "R=${R:-16}\ntrl sft --k=$R --z"),
        ("A=(--k 8 --y)\ntrl sft ${A[@]}", 16, "A=(--k 16 --y)\ntrl sft ${A[@]}"),
        ("A='--k 8 --y'\ntrl sft $A", 16, "A='--k 16 --y'\ntrl sft $A"),
    ],
)
def test_a_value_is_replaced_where_it_is_written(text: str, value: object, after: str) -> None:
    assert edited(text, "k", value) == after


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("R=8\ntrl sft --k $R\npython x.py --y $R", 16),
        ("R=8\ntrl sft --k $R", "a b"),
        ("A='--k 8'\ntrl sft $A", "a b"),
        ("A=(--k 8)\ntrl sft ${A[@]}\ntrl dpo ${A[@]}", 16),
        ("trl sft --k $(x)", 16),
        ("trl sft --k x$R", 16),
        ("trl sft --k", False),
        ("trl sft --k 8", "--x"),
        ("trl sft --k=8", ["1", "2"]),
        ("trl sft --k 8", "a\nb"),
        ("trl sft --k a b", []),
    ],
)
def test_what_cannot_be_replaced_says_so(text: str, value: object) -> None:
    with pytest.raises(NotEditable, match=r"\w"):
        edited(text, "k", value)


LINES = """\
trl sft \\
    --model m \\
    --lora_r 8 \\
    --use_peft \\
    --target_modules q \\
      v
"""


def inserted(text: str, key: str, value: object, near: list[str]) -> str:
    document = parse(text)
    return apply_edits(text, document.insert_key(document.parts[0].node, key, value, near))


def test_a_new_option_is_written_like_its_neighbour() -> None:
    assert inserted(LINES, "a", 1, ["lora_r"]) == LINES.replace(
        "    --lora_r 8 \\\n", "    --lora_r 8 \\\n    --a 1 \\\n"
    )
    assert inserted(LINES, "a", ["x", "y"], []) == LINES.rstrip("\n") + " \\\n    --a x y\n"
    assert inserted("trl sft --b=1 # c", "a", 2, []) == "trl sft --b=1 --a=2 # c"
    assert inserted("trl sft c.d=1 b.c=2", "a.b", 2, ["c.d"]) == "trl sft c.d=1 a.b=2 b.c=2"
    assert inserted("trl sft", "a", 2, []) == "trl sft --a 2"
    assert inserted("trl sft > log", "a", None, []) == "trl sft --a > log"
    assert inserted("A=(\n  --b 1  # c\n)\ntrl sft ${A[@]}", "a", 2, ["b"]) == (
        "A=(\n  --b 1\n  --a 2  # c\n)\ntrl sft ${A[@]}"
    )
    assert inserted("A='--b 1'\ntrl sft $A", "a", 2, ["b"]) == "A='--b 1 --a 2'\ntrl sft $A"


def test_a_new_option_in_a_file_with_windows_line_ends_and_no_last_one() -> None:
    text = "trl sft \\\r\n  --b 1 \\\r\n  --c 2"
    assert inserted(text, "a", 3, ["c"]) == text + " \\\r\n  --a 3"


def removed(text: str, key: str) -> str:
    document = parse(text)
    node = document.parts[0].node
    return apply_edits(text, document.remove_key(node, node.entry(key)))


def test_a_removed_option_takes_its_values_and_keeps_the_lines_joined() -> None:
    assert removed(LINES, "lora_r") == LINES.replace("    --lora_r 8 \\\n", "")
    assert removed(LINES, "target_modules") == LINES.replace(
        " \\\n    --target_modules q \\\n      v", ""
    )
    assert removed("trl sft --a 1 --b=2 > log", "b") == "trl sft --a 1 > log"
    assert removed("A=(\n  --b 1  # c\n  --d 2\n)\ntrl sft ${A[@]}", "b") == (
        "A=(\n  --d 2\n)\ntrl sft ${A[@]}"
    )
    assert removed("A='--b 1 --d 2'\ntrl sft $A", "b") == "A='--d 2'\ntrl sft $A"


def test_words_behind_a_removed_option_do_not_become_values() -> None:
    with pytest.raises(NotEditable, match="taken for"):
        removed("trl sft --a --b=1 file", "b")


def test_an_option_gets_another_name() -> None:
    document = parse("trl sft --a=1 +b=2")
    node = document.parts[0].node
    for key, name in (("a", "alpha"), ("b", "x.y")):
        edits = document.rename_key(node, node.entry(key), name)
        after = apply_edits(document.text, edits)
        assert after == document.text.replace(f"{key}=", f"{name}=")


KEYS = st.sampled_from(["lora_r", "model", "target_modules", "a", "b-c", "use_peft", "x.y"])
WORDS = st.sampled_from(
    ["8", "0.1", "q_proj", "a b", "it's", "$x", '"', "\\", "é", "", "-1", "{a,b}", "*", "#x", "~",
     "`x`", "a=b", "'\"", "{\"a\": [1]}", "!", "a;b"]
)  # fmt: skip
QUOTES = st.sampled_from(["'{}'", '"{}"', "{}", "{}"])


@st.composite
def scripts(draw: st.DrawFn) -> str:
    """A script with one command whose options are written in many ways."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    gap = draw(st.sampled_from([" ", "  ", f" \\{newline}    ", f" \\{newline}\t"]))
    head: list[str] = [draw(st.sampled_from(["# é", "echo 🙂", "cd x", ""]))]
    options: list[str] = []
    for key in draw(st.lists(KEYS, min_size=1, max_size=5)):
        kind = draw(st.integers(0, 6))
        value = draw(st.sampled_from(["8", "0.1", "q_proj"]))
        written = draw(QUOTES).format(value)
        if kind == 0:
            options.append(f"--{key}")
        elif kind == 1:
            options.append(f"--{key}={written}")
        elif kind == 2:
            options.append(draw(QUOTES).format(f"--{key}={value}"))
        elif kind == 3:
            options.append(f"--{key} {written} {draw(QUOTES).format('v_proj')}")
        elif kind == 4:
            name = f"V{len(head)}"
            head.append(f"{name}={written}")
            use = draw(st.sampled_from([f"${name}", f'"${{{name}}}"', f"${{{name}:-1}}"]))
            options.append(f"--{key}{draw(st.sampled_from([' ', '=']))}{use}")
        elif kind == 5 and "." in key:
            options.append(f"{key}={written}")
        else:
            options.append(f"--{key} {written}")
    start = draw(st.sampled_from(["", "base.yaml"]))
    kind = draw(st.integers(0, 3))
    inside = [option for option in options if not option.startswith("x.y")]
    if kind == 0:
        between = draw(st.sampled_from([" ", f"{newline}  ", f"  # é{newline}  "]))
        head.append(f"ARGS=({between.join(['', *inside])}{newline})")
        options = ['"${ARGS[@]}"', "--end 1"]
    elif kind == 1 and not any(mark in option for option in inside for mark in "'\"$"):
        head.append(f'ARGS="{" ".join(inside)}"')
        options = ["--start 1", "$ARGS"]
    words = [word for word in ["trl sft", start, *options] if word]
    tail = draw(st.sampled_from(["", " > log 2>&1 &", f"{newline}echo done{newline}", newline]))
    return newline.join([*head, gap.join(words) + tail])


def as_pairs(document: Any) -> list[tuple[object, object]]:
    return values(document.parts[0].node)


@settings(max_examples=150, deadline=None)
@given(scripts(), st.data())
def test_only_the_wished_value_changes(text: str, data: st.DataObject) -> None:
    document = parse(text)
    node = document.parts[0].node
    number = data.draw(st.integers(0, len(node.entries) - 1))
    target = node.entries[number].node
    several = target.kind == "sequence" and data.draw(st.booleans())
    value = data.draw(st.lists(WORDS, min_size=1, max_size=4)) if several else data.draw(WORDS)
    try:
        edits = document.replace(target, value)
    except NotEditable:
        return
    pairs = as_pairs(document)
    new = value[0] if isinstance(value, list) and len(value) == 1 else value
    pairs[number] = (pairs[number][0], new)
    after = apply_edits(text, edits)
    assert as_pairs(parse(after)) == pairs
    assert_nothing_else(text, after, edits)


@settings(max_examples=150, deadline=None)
@given(scripts(), st.data())
def test_only_the_new_option_is_new(text: str, data: st.DataObject) -> None:
    document = parse(text)
    node = document.parts[0].node
    near = [e.key for e in node.entries if isinstance(e.key, str) and data.draw(st.booleans())]
    value = data.draw(WORDS | st.lists(WORDS, min_size=2, max_size=3) | st.none())
    try:
        edits = document.insert_key(node, "new_key", value, near)
    except NotEditable:
        return
    after = parse(apply_edits(text, edits))
    expected = ("new_key", True if value is None else value)
    pairs = as_pairs(after)
    assert pairs.count(expected) == 1
    pairs.remove(expected)
    assert pairs == as_pairs(document)
    assert_nothing_else(text, after.text, edits)


@settings(max_examples=150, deadline=None)
@given(scripts(), st.data())
def test_only_the_removed_option_goes(text: str, data: st.DataObject) -> None:
    document = parse(text)
    node = document.parts[0].node
    number = data.draw(st.integers(0, len(node.entries) - 1))
    try:
        edits = document.remove_key(node, node.entries[number])
    except NotEditable:
        return
    pairs = as_pairs(document)
    del pairs[number]
    after = parse(apply_edits(text, edits))
    assert as_pairs(after) == pairs
    gone = "".join(text[edit.start : edit.end] for edit in edits)
    assert gone.strip(" \t\r\n\\").count("--") <= 1
    assert all(not edit.text for edit in edits)


def assert_nothing_else(text: str, after: str, edits: list[Any]) -> None:
    """Without the edited stretches both texts are the same."""
    kept, rest = text, after
    shift = 0
    places = []
    for edit in sorted(edits):
        places.append((edit.start + shift, edit.start + shift + len(edit.text)))
        shift += len(edit.text) - (edit.end - edit.start)
    for edit in sorted(edits, reverse=True):
        kept = kept[: edit.start] + kept[edit.end :]
    for start, end in reversed(places):
        rest = rest[:start] + rest[end:]
    assert kept == rest


# Formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.sh", ""),
        ("a.bash", ""),
        ("run", "#!/bin/bash\n"),
        ("run", "#!/usr/bin/env bash\n"),
        ("run", "#! /bin/sh -e\n"),
    ],
)
def test_which_files_are_shell_scripts(path: str, text: str) -> None:
    assert documents.format_of(path, text) == "shell"
    assert documents.parse(path, text).format == "shell"


def test_other_files_are_none() -> None:
    assert documents.format_of("run", "#!/usr/bin/env python\n") == "yaml"
    assert documents.format_of("a.py", "#!/bin/sh\n") == "python"


def test_the_first_line_is_no_comment() -> None:
    text = textwrap.dedent("""\
        #!/bin/bash
        # one
        trl sft --lora_r 8  # two
        echo "# three" a#b
        """)
    assert [comment.text for comment in parse(text).comments()] == [" one", " two"]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("# lora-lint: ignore[SC208]\ntrl sft \\\n  --x 1 \\\n  --lora_r 8\n", True),
        ("trl sft \\\n  --lora_r 8 \\\n  --x 1  # lora-lint: ignore[SC208]\n", True),
        ("# lora-lint: ignore[SC208]\ntrl dpo --x 1\ntrl sft \\\n  --lora_r 8\n", False),
    ],
)
def test_a_comment_holds_for_all_lines_of_a_command(text: str, holds: bool) -> None:
    document = parse(text)
    part = document.parts[-1]
    span = part.node.get("lora_r").span
    found = Diagnostic(
        "SC208", "n", "info", "m", "run.sh", span, document=part.index, key_path=("lora_r",)
    )
    assert suppressions.silenced(document, found, suppressions.find(document)) is holds
