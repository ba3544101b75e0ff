"""The trees of older transformers releases.

``older_names.json`` holds what ``tools/name_patterns.py`` read in each release's own process from
torch's ``named_modules()``.
"""

import json
from pathlib import Path

import pytest

from lora_lint.injection import inject
from lora_lint.models import Resolution, Unresolved, catalogue, lines, resolve
from lora_lint.models.renamed import patterns

OLDER = json.loads((Path(__file__).parent / "older_names.json").read_text(encoding="utf-8"))
CASES = [
    (release, model_type, cls)
    for release, types in OLDER.items()
    for model_type, classes in types.items()
    for cls in classes
]


@pytest.mark.parametrize(("release", "model_type", "cls"), CASES)
def test_a_class_has_the_names_of_its_release(release, model_type, cls):
    tree = lines.template(model_type, cls, lines.line_of(release))
    assert tree is not None
    assert patterns(tree) == set(OLDER[release][model_type][cls])


def found(name: str, version: str, **more: str) -> Resolution:
    resolution = resolve(name, transformers=version, **more)
    assert isinstance(resolution, Resolution), resolution
    return resolution


def linear(resolution: Resolution) -> set[str]:
    return {name for name, node in resolution.tree.named_modules() if node.kind == "Linear"}


def test_a_mixture_has_its_experts_as_modules_and_all_its_parameters():
    old = found("mistralai/Mixtral-8x7B-v0.1", "4.57.6")
    new = found("mistralai/Mixtral-8x7B-v0.1", "5.23.0")
    assert {f"model.layers.31.block_sparse_moe.experts.7.w{i}" for i in (1, 2, 3)} <= linear(old)
    assert not any("experts" in name for name in linear(new))
    assert old.tree.sized
    assert old.tree.grade == new.tree.grade
    assert old.tree.parameter_count() == new.tree.parameter_count()
    assert old.tree.transformers == "4.57.6"


def test_a_vision_encoder_has_the_names_of_transformers_4():
    old = found("google/vit-base-patch16-224", "4.57.6")
    assert "vit.encoder.layer.0.attention.attention.query" in linear(old)
    assert old.tree.parameter_count() == 86_567_656


@pytest.mark.parametrize(
    ("version", "prefix"),
    [("4.46.3", "language_model.model.layers."), ("4.57.6", "model.language_model.layers.")],
)
def test_the_prefix_of_a_multimodal_model_moved(version, prefix):
    names = linear(found("llava-hf/llava-1.5-7b-hf", version))
    assert f"{prefix}0.self_attn.q_proj" in names


def test_every_file_can_be_read_and_says_something_of_each_release_measured():
    for model_type in catalogue.model_types():
        own = lines.of_model_type(model_type)
        assert own is not None, model_type
        known = catalogue.architecture(model_type)
        assert known is not None
        # Not all that the catalogue has could be built beside the older releases: some need timm.
        newest = {cls: own.number(cls, lines.newest()) for cls in own.classes}
        assert {cls for cls, n in newest.items() if n == lines.SAME} <= set(known.classes)
        assert set(newest.values()) <= {lines.SAME, lines.ABSENT, None}
    for entry in catalogue.models():
        for tree in (entry.tree, *entry.others.values()):
            kept = lines.of_known(tree)
            assert kept is None or kept.number(tree, lines.newest()) == lines.SAME, tree


def test_any_patch_release_counts_as_its_minor():
    old, older = (found("google/vit-base-patch16-224", v) for v in ("4.57.6", "4.57.1"))
    assert linear(old) == linear(older)


def test_releases_beyond_those_measured_count_as_the_nearest():
    assert linear(found("google/vit-base-patch16-224", "4.30.0")) == linear(
        found("google/vit-base-patch16-224", "4.46.3")
    )
    new = found("google/vit-base-patch16-224", "99.0.0")
    assert linear(new) == linear(found("google/vit-base-patch16-224", "5.23.0"))


def test_a_model_type_that_came_later_is_not_there():
    missing = resolve("Qwen/Qwen3-8B", transformers="4.46.3")
    assert isinstance(missing, Unresolved)
    assert "transformers 4.46.3 has no qwen3 models" in missing.reason


def test_facts_are_those_of_the_release():
    old = found("meta-llama/Llama-3.2-1B", "4.57.6").tree
    assert old.facts["encodes"]  # GenerationMixin of transformers before 5.18
    assert old.facts["tied_keys"] == ["lm_head.weight"]
    new = found("meta-llama/Llama-3.2-1B", "5.23.0").tree
    assert "encodes" not in new.facts
    assert new.facts["tied_keys"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert old.tied == new.tied


def test_what_a_recipe_for_transformers_4_adapts_is_known():
    old = found("google/vit-base-patch16-224", "4.57.6").tree
    done = inject(old, {"r": 8, "target_modules": ["query", "value"]}, peft="0.18.1")
    assert len(done.modules) == 24
    assert done.trainable == 24 * 2 * 8 * 768
