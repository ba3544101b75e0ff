"""The command that reads PEFT's wheels: what it prints of a new release, and what it refuses."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_lint.facts import peft_facts, version_key
from lora_lint.injection.semantics import HISTORY
from tools.peft_facts import DATA, collect, describe, report

CONFIG = """
@dataclass
class FooConfig:
    depth: int = field(default=2)


@dataclass
class LoraConfig(PeftConfig):
    r: int = field(default=8)
    target_modules: Optional[Union[list[str], str]] = field(default=None)
    init_lora_weights: bool | Literal["gaussian", "pissa"] = field(default=True)
    rank_pattern: Optional[dict] = field(default_factory=dict)
    foo_config: Optional[FooConfig] = field(default=None)

    def __post_init__(self):
        super().__post_init__()
"""
LAYER = """
class LoraLayer:
    def reset_lora_parameters(self, adapter_name, init_lora_weights):
        if init_lora_weights.lower() == "gaussian":
            pass
        elif init_lora_weights.startswith("pissa"):
            pass


def dispatch_default(target, adapter_name, config, **kwargs):
    if isinstance(target, BaseTunerLayer):
        target = target.get_base_layer()
    if isinstance(target, torch.nn.Linear):
        return Linear(target)
"""
MODEL = """
class LoraModel(BaseTuner):
    def _create_new_module(lora_config, adapter_name, target, **kwargs):
        dispatchers = []
        if is_bnb_available():
            from .bnb import dispatch_bnb_8bit
            dispatchers.append(dispatch_bnb_8bit)
        dispatchers.extend([dispatch_gptq, dispatch_default])
"""
BASE = """
@dataclass
class PeftConfigMixin(PushToHubMixin):
    task_type: Optional[str] = field(default=None)


@dataclass
class PeftConfig(PeftConfigMixin):
    inference_mode: bool = field(default=False)
"""
TYPES = """
class TaskType(str, enum.Enum):
    SEQ_CLS = "SEQ_CLS"
"""
TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
CONSTANTS = f"""
{TABLE} = {{
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
}}
"""
FILES = {
    "peft/tuners/lora/config.py": CONFIG,
    "peft/tuners/lora/layer.py": LAYER,
    "peft/tuners/lora/model.py": MODEL,
    "peft/config.py": BASE,
    "peft/utils/peft_types.py": TYPES,
    "peft/utils/constants.py": CONSTANTS,
}


def write_wheel(folder: Path, version: str, files: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / f"peft-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def edited(*edits: tuple[str, str]) -> dict[str, str]:
    """The files of the release, with texts replaced; each must be there once."""
    files = dict(FILES)
    for old, new in edits:
        (name,) = [n for n, text in files.items() if text.count(old) == 1]
        files[name] = files[name].replace(old, new)
    return files


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Facts of a release 1.0.0, and of 1.1.0 if its files are given."""

    def read(files: dict[str, str] | None = None) -> dict[str, Any]:
        write_wheel(tmp_path, "1.0.0", FILES)
        if files is None:
            return collect(["1.0.0"], tmp_path)
        write_wheel(tmp_path, "1.1.0", files)
        return collect(["1.0.0", "1.1.0"], tmp_path)

    return read


def test_a_new_release_is_absorbed_and_told_in_words(read: Callable[..., dict[str, Any]]) -> None:
    new = edited(
        ("    depth: int = field(default=2)", "    depth: int = 3\n    width: float = 0.5"),
        (
            "    r: int = field(default=8)",
            "    r: int = field(default=16)\n    bar: Optional[int] = None",
        ),
        ("    rank_pattern: Optional[dict] = field(default_factory=dict)\n", ""),
        ('"gaussian", "pissa"', '"gaussian", "pissa", "eva"'),
        (
            '== "gaussian":\n',
            '== "gaussian":\n            pass\n        elif init_lora_weights in ("eva", "ga"):\n',
        ),
        ('"llama": ["q_proj", "v_proj"]', '"llama": ["q_proj"],\n    "qwen9": ["q_proj"]'),
        (
            "return Linear(target)",
            "pass\n    if isinstance(target, torch.nn.Conv3d):\n        pass",
        ),
        ("[dispatch_gptq,", "[dispatch_awq, dispatch_gptq,"),
        ('    SEQ_CLS = "SEQ_CLS"', '    SEQ_CLS = "SEQ_CLS"\n    CAUSAL_LM = "CAUSAL_LM"'),
    )
    before, after = read(), read(new)
    assert list(report(before, after)) == [
        "1.1.0: new",
        "  + field bar (Optional[int], default None)",
        "  ~ field init_lora_weights: type bool | Literal['gaussian', 'pissa'] -> bool | Literal['gaussian', 'pissa', 'eva']",  # noqa: E501
        "  ~ field r: default 8 -> default 16",
        "  - field rank_pattern",
        "  ~ sub-config FooConfig: field depth: default 2 -> default 3",
        "  + sub-config FooConfig: field width (default 0.5)",
        '  ~ default targets of llama: ["q_proj", "v_proj"] -> ["q_proj"]',
        '  + default targets of qwen9: ["q_proj"]',
        "  + layer kind AWQ",
        "  + layer kind Conv3d",
        "  + task type CAUSAL_LM",
        "  + init_lora_weights eva",
        "  + init_lora_weights ga",
        "  unchanged: tables of experts",
    ]


def test_an_unchanged_release_is_told_too(read: Callable[..., dict[str, Any]]) -> None:
    assert list(report(read(), read(FILES))) == [
        "1.1.0: new",
        "  unchanged: fields, sub-configs, default targets, layer kinds, task types, init_lora_weights values, tables of experts",  # noqa: E501
    ]


def test_a_release_that_reads_otherwise_is_told(read: Callable[..., dict[str, Any]]) -> None:
    facts = read(FILES)
    before = json.loads(json.dumps(facts))
    before["fields"]["r"]["changes"][0]["value"]["default"] = 4
    before["versions"] += ["1.2.0"]
    assert list(report(before, facts)) == [
        "1.0.0: fields read otherwise than before",
        "  no longer: + field r (int, default 4)",
        "  now read: + field r (int, default 8)",
        "1.2.0: no longer released",
    ]
    assert list(report(facts, facts)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    r: int = field(default=8)",
            "    r: int = field(default=RANK)",
            "config.py: LoraConfig.r: a literal",
        ),
        (
            "    r: int = field(default=8)",
            "    r: int = RANKS[0]",
            "config.py: LoraConfig.r: a literal",
        ),
        (
            "default_factory=dict",
            "default_factory=lambda: {}",
            "config.py: LoraConfig.rank_pattern: the default factory",
        ),
        (
            "    r: int = field(default=8)",
            "    if NEW:\n        r: int = 8",
            "config.py: LoraConfig: a If among the fields",
        ),
        (
            "class LoraConfig(PeftConfig)",
            "class LoraConfig(PeftConfig, Extra)",
            "config.py: LoraConfig: inherits from Extra",
        ),
        (
            "class LoraConfig(PeftConfig)",
            "class LoRAConfig(PeftConfig)",
            "LoraConfig: in none of peft/tuners/lora/config.py",
        ),
        (
            "Optional[FooConfig]",
            "Optional[BarConfig]",
            "config.py: LoraConfig.foo_config: BarConfig is defined elsewhere",
        ),
        ('["c_attn"]', "TARGETS", f"constants.py: {TABLE}: a literal"),
        ('    "gpt2": ["c_attn"],', "    **OTHERS,", f"constants.py: {TABLE}: a literal"),
        (
            '"v_proj"],\n}\n',
            f'"v_proj"],\n}}\n{TABLE}.update(MORE)\n',
            f"constants.py: {TABLE}: `{TABLE}.update(MORE)`",
        ),
        (
            '"v_proj"],\n}\n',
            f'"v_proj"],\n}}\n{TABLE}["x"] = MORE\n',
            f"constants.py: {TABLE}['x']: a literal",
        ),
        (
            '    SEQ_CLS = "SEQ_CLS"',
            "    SEQ_CLS = auto()",
            "peft_types.py: TaskType.SEQ_CLS: a literal",
        ),
        (
            "[dispatch_gptq,",
            "[dispatch_new, dispatch_gptq,",
            "model.py: _create_new_module: dispatch_new: an unknown dispatcher",
        ),
        (
            "isinstance(target, torch.nn.Linear)",
            "isinstance(target, torch.nn.Bilinear)",
            "layer.py: dispatch_default: isinstance torch.nn.Bilinear: an unknown kind",
        ),
        ("def _create_new_module", "def _make_module", "model.py: LoraModel: no function"),
        (
            '"gaussian", "pissa"]',
            '"gaussian", "pissa", "eva"]',
            "layer.py: init_lora_weights: 'eva' is annotated but never compared",
        ),
    ],
)
def test_what_is_not_understood_ends_the_command(
    read: Callable[..., dict[str, Any]], old: str, new: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read(edited((old, new)))
    assert message in str(stopped.value)
    assert str(stopped.value).startswith("peft-1.1.0-py3-none-any.whl: ")


def test_stale_modules_beside_a_package_are_not_read(read: Callable[..., dict[str, Any]]) -> None:
    """The wheel of 0.6.2 has a tuners/lora.py beside tuners/lora/, without rank_pattern."""
    stale = CONFIG.replace("    rank_pattern: Optional[dict] = field(default_factory=dict)\n", "")
    single = {"peft/tuners/lora.py": stale + LAYER + MODEL}
    facts = read(single | FILES)
    assert facts["fields"]["rank_pattern"]["removed"] is None
    assert [line for lines in describe(facts, "1.1.0").values() for line in lines] == []


def test_a_release_without_a_package_is_read_from_the_single_module(
    read: Callable[..., dict[str, Any]],
) -> None:
    early = {n: t for n, t in FILES.items() if not n.startswith("peft/tuners/")}
    facts = read(early | {"peft/tuners/lora.py": CONFIG + LAYER + MODEL})
    assert [line for lines in describe(facts, "1.1.0").values() for line in lines] == []


def test_a_field_in_a_tuple_is_marked(read: Callable[..., dict[str, Any]]) -> None:
    """BdLoraConfig.nblocks of 0.19: a trailing comma makes the default a tuple."""
    facts = read(
        edited(("    depth: int = field(default=2)", "    depth: int = field(default=2),"))
    )
    depth = facts["subconfigs"]["FooConfig"]["changes"][-1]["value"]["depth"]["default"]
    assert depth == {"code": "(field(default=2),)", "tuple of a field with default": 2}
    assert describe(facts, "1.1.0")["subconfigs"] == [
        "~ sub-config FooConfig: field depth: default 2 -> default (field(default=2),)..., which is no field"  # noqa: E501
    ]


# The facts themselves
# ------------------------------------------------------------------------------------

# Read in the wheels by hand: since which release a kind of layer gets an adapter.
FIRST_RELEASES = {
    "Linear": "0.0.1",
    "Conv1D": "0.0.1",
    "bnb 8-bit": "0.1.0",
    "Embedding": "0.3.0",
    "Conv2d": "0.4.0",
    "bnb 4-bit": "0.4.0",
    "GPTQ": "0.5.0",
    "Megatron": "0.7.0",
    "AWQ": "0.9.0",
    "AQLM": "0.9.0",
    "EETQ": "0.11.0",
    "HQQ": "0.11.0",
    "Conv3d": "0.14.0",
    "torchao": "0.14.0",
    "Conv1d": "0.15.0",
    "MultiheadAttention": "0.15.0",
    "INC": "0.16.0",
    "Parameter": "0.17.0",
    "TransformerEngine": "0.19.0",
}


def test_layer_kinds_by_first_release() -> None:
    kinds = peft_facts()["layer_kinds"]
    assert {kind: life["since"] for kind, life in kinds.items()} == FIRST_RELEASES
    assert all(life["removed"] is None for life in kinds.values())


def test_inject_knows_the_kinds_that_the_wheels_know() -> None:
    """Those that need no other library; a Parameter is targeted by another field."""
    seen: dict[str, str] = {}
    for since, kinds in HISTORY["kinds"]:
        for kind in sorted(kinds - seen.keys()):
            seen[kind] = since
    for kind, since in seen.items():
        wheels = peft_facts()["layer_kinds"][kind]["since"]
        assert max(version_key(wheels), version_key("0.4.0")) == version_key(since), kind
    assert set(seen) == {
        "Linear",
        "Conv1D",
        "Embedding",
        "Conv2d",
        "Conv3d",
        "Conv1d",
        "MultiheadAttention",
    }


def test_the_odd_default_of_bdlora_is_marked_where_it_is_odd() -> None:
    changes = peft_facts()["subconfigs"]["BdLoraConfig"]["changes"]
    defaults = {c["since"]: c["value"]["nblocks"]["default"] for c in changes}
    assert defaults["0.19.0"]["tuple of a field with default"] == 1
    assert {since: d for since, d in defaults.items() if since != "0.19.0"} == {"0.20.0": 1}


def test_0_6_2_kept_its_fields() -> None:
    assert peft_facts()["fields"]["rank_pattern"]["since"] == "0.6.0"
    assert peft_facts()["fields"]["rank_pattern"]["removed"] is None


def test_the_file_is_what_the_command_writes() -> None:
    assert DATA.read_text() == json.dumps(peft_facts(), indent=1) + "\n"
