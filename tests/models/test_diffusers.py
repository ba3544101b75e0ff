"""Diffusion models: which component is meant, and what PEFT does with it."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from lora_lint import ModuleTree, inject, lint_text
from lora_lint.models import Resolution, Unresolved, diffusers, resolve

if TYPE_CHECKING:
    from pathlib import Path


def found(name: str, cls: str | None = None, folder: Path | None = None) -> Resolution:
    result = resolve(name, cls=cls, folder=folder)
    assert isinstance(result, Resolution), result.reason
    return result


def refused(name: str, cls: str | None = None, folder: Path | None = None) -> str:
    result = resolve(name, cls=cls, folder=folder)
    assert isinstance(result, Unresolved)
    return result.reason


# Parameter counts of the weights as published, noted apart from the trees.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("runwayml/stable-diffusion-v1-5", 859_520_964),
        ("stabilityai/stable-diffusion-2-1", 865_910_724),
        ("stabilityai/stable-diffusion-xl-base-1.0", 2_567_463_684),
        ("stabilityai/stable-diffusion-3-medium-diffusers", 2_028_328_000),
        ("black-forest-labs/FLUX.1-dev", 11_901_408_320),
        ("black-forest-labs/FLUX.1-schnell", 11_891_178_560),
    ],
)
def test_the_denoiser_of_a_known_pipeline_has_the_published_size(name: str, count: int) -> None:
    tree = found(name).tree
    assert (tree.parameter_count(), tree.grade) == (count, "exact")


def test_every_stored_tree_can_be_read_and_has_what_its_grade_says() -> None:
    for pipeline in diffusers.pipelines():
        for part in pipeline.parts.values():
            if "tree" in part:
                tree = diffusers.load_tree(part["tree"])
                assert tree.sized == (part["grade"] != "named")


def test_other_names_of_the_same_weights() -> None:
    result = found("stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert result.known_as == "runwayml/stable-diffusion-v1-5"
    assert found("BLACK-FOREST-LABS/flux.1-dev").tree.cls == "FluxTransformer2DModel"


def test_a_class_or_a_components_name_says_which_part_is_meant() -> None:
    name = "stabilityai/stable-diffusion-xl-base-1.0"
    assert found(name, "unet").tree.cls == found(name, "UNet2DConditionModel").tree.cls
    encoder = found(name, "text_encoder").tree
    assert (encoder.cls, encoder.grade) == ("CLIPTextModel", "named")
    assert "no LlamaForCausalLM" in refused(name, "LlamaForCausalLM")
    two = refused("stabilityai/stable-diffusion-3-medium-diffusers", "CLIPTextModelWithProjection")
    assert "text_encoder and text_encoder_2" in two


FLUX = {"guidance_embeds": True, "_class_name": "FluxTransformer2DModel"}


def write(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_folder_is_known_by_its_values(tmp_path: Path) -> None:
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    write(tmp_path / "flux/model_index.json", index)
    assert found("./flux", folder=tmp_path).tree.grade == "named"
    write(tmp_path / "flux/transformer/config.json", FLUX)
    result = found("./flux", folder=tmp_path)
    assert result.tree.parameter_count() == 11_901_408_320
    assert result.source == "config.json in ./flux, its transformer"
    assert found("./flux/transformer", folder=tmp_path).tree.sized
    write(tmp_path / "flux/transformer/config.json", {**FLUX, "num_layers": 2})
    assert found("./flux", folder=tmp_path).tree.grade == "named"
    assert "not of a UNet2D" in refused("./flux/transformer", "UNet2DConditionModel", tmp_path)


def test_a_text_encoder_in_a_folder(tmp_path: Path) -> None:
    index = {"_class_name": "FluxPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
    write(tmp_path / "flux/model_index.json", index)
    values = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]}
    write(tmp_path / "flux/text_encoder/config.json", values)
    assert found("./flux", "text_encoder", tmp_path).tree.cls == "CLIPTextModel"
    assert found("./flux", "CLIPTextModel", tmp_path).tree.cls == "CLIPTextModel"


def test_a_folder_that_says_too_little_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "pipe/model_index.json", {"_class_name": "AcmePipeline"})
    assert "neither a unet nor a transformer" in refused("./pipe", folder=tmp_path)
    write(tmp_path / "pipe/config.json", {"_class_name": "AcmeModel"})
    assert "the catalogue has no AcmeModel" in refused("./pipe", folder=tmp_path)


SCRIPT = """\
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from transformers import CLIPTextModel

name = "runwayml/stable-diffusion-v1-5"
vae = AutoencoderKL.from_pretrained(name, subfolder="vae")
text_encoder = CLIPTextModel.from_pretrained(name, subfolder="text_encoder")
unet = UNet2DConditionModel.from_pretrained(name, subfolder="unet")
unet.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=["to_k", "to_q", {third!r}]))
"""


def test_the_idiom_of_training_scripts_is_checked() -> None:
    fine = lint_text(SCRIPT.format(third="to_out.0"), "train.py")
    assert not [d for d in fine.diagnostics if d.code.startswith("TM")]
    wrong = lint_text(SCRIPT.format(third="to_vv"), "train.py")
    assert [d.code for d in wrong.diagnostics if d.code.startswith("TM")] == ["TM102"]


def test_without_a_wrapper_the_task_type_stops_nothing() -> None:
    code = SCRIPT.format(third="to_v").replace("r=4,", 'r=4, task_type="CAUSAL_LM",')
    assert not [d for d in lint_text(code, "train.py").diagnostics if d.severity == "error"]
    wrapped = code.replace(
        "unet.add_adapter(", "from peft import get_peft_model\nget_peft_model(unet, "
    )
    assert "TR614" in [d.code for d in lint_text(wrapped, "train.py").diagnostics]


CONFIGS: list[dict[str, Any]] = [
    {"target_modules": ["to_q", "to_k", "to_v", "to_out.0"]},
    {"target_modules": ["to_k", "conv1", "conv_shortcut", "proj_in", "time_emb_proj"]},
    {"target_modules": "all-linear"},
    {"target_modules": r".*attn1\.to_[qkv]"},
    {"target_modules": ["to_k"], "modules_to_save": ["conv_in", "proj_out"]},
    {"target_modules": ["to_k"], "use_dora": True, "bias": "all"},
    {"target_modules": ["q_proj"]},
    {},
]


@pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
@pytest.mark.parametrize("model", ["plain", "linear", "flux"])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_real_peft_does_the_same_on_a_small_model(model: str, config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    warnings.simplefilter("ignore")
    import diffusers as real

    unet = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    }
    flux = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16}
    flux |= {"num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8)}
    made = {
        "plain": lambda: real.UNet2DConditionModel(**unet),
        "linear": lambda: real.UNet2DConditionModel(**unet, use_linear_projection=True),
        "flux": lambda: real.FluxTransformer2DModel(**flux),
    }[model]()
    ours = inject(ModuleTree.from_model(made), {"r": 4, **config}, peft=peft.__version__)
    try:
        theirs = peft.get_peft_model(made, peft.LoraConfig(r=4, **config))
    except (KeyError, ValueError) as exc:
        said = ours.error and (ours.error.type, ours.error.message)
        stopped = (type(exc).__name__, str(exc))
    else:
        said = stopped = None
    assert said == stopped
    if stopped:
        return
    assert sorted(ours.modules) == sorted(theirs.targeted_module_names)
    assert (ours.trainable, ours.total) == theirs.get_nb_trainable_parameters()
    assert torch.__version__
