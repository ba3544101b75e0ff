"""The stored form of a module tree: nothing is lost, and a stranger's file can do no harm."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint.models import ModuleNode, ModuleTree
from lora_lint.models.module_tree import KINDS

NAMES = st.one_of(
    st.integers(0, 12).map(str),
    st.sampled_from(["q_proj", "mlp", "00", "-1", "²", "weight", "a b", "é"]),
    st.text(min_size=1, max_size=4).filter(lambda text: "." not in text),
)
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)
FACTS = st.fixed_dictionaries(
    {}, optional={"features": st.lists(st.integers(0, 9), min_size=2, max_size=2)}
)


def nodes(children: st.SearchStrategy[dict[str, ModuleNode]]) -> st.SearchStrategy[ModuleNode]:
    return st.builds(
        ModuleNode,
        st.sampled_from(["Linear", "Block", "ModuleList", "X:Y"]),
        st.sampled_from(KINDS),
        st.dictionaries(NAMES, SHAPES, max_size=3),
        children,
        FACTS,
    )


LEAVES = nodes(st.just({}))
ROOTS = st.recursive(LEAVES, lambda inner: nodes(st.dictionaries(NAMES, inner, max_size=5)))
TIES = st.lists(
    st.lists(st.lists(NAMES, min_size=1, max_size=3).map(".".join), min_size=2, max_size=3),
    max_size=4,
)


def plain(node: ModuleNode) -> object:
    children = [(name, plain(child)) for name, child in node.children.items()]
    return node.cls, node.kind, dict(node.parameters), children, dict(node.facts)


@settings(max_examples=200, deadline=None)
@given(ROOTS, TIES, st.sampled_from(["exact", "named", "live"]))
def test_json_keeps_everything(root, ties, grade):
    tree = ModuleTree(
        root,
        "Model",
        "llama",
        "5.23.0",
        grade,
        "bfloat16",
        {"generates": True, "config": {"vocab_size": 3}},
        {"b": "a"},
        tuple(tuple(group) for group in ties),
    )
    again = ModuleTree.from_json(tree.to_json())
    assert plain(again.root) == plain(tree.root)
    for name in ("cls", "model_type", "transformers", "grade", "dtype", "facts", "shared", "tied"):
        assert getattr(again, name) == getattr(tree, name)
    assert [name for name, _ in again.named_modules()] == [n for n, _ in tree.named_modules()]
    assert again.parameter_count() == tree.parameter_count()


def small() -> ModuleTree:
    linear = ModuleNode("Linear", "Linear", {"weight": (3, 2)}, {})
    block = ModuleNode("Block", "other", {}, {"up": linear, "down": linear})
    layers = ModuleNode("ModuleList", "container", {}, {str(i): block for i in range(126)})
    return ModuleTree(ModuleNode("Net", "other", {}, {"layers": layers}), "Net", None, None)


def test_equal_layers_are_stored_once():
    text = small().to_json()
    assert len(text) < 600
    assert small().parameter_count() == 126 * 2 * 6
    assert ModuleTree.from_json(text).get("layers.125.up") is not None
    assert ModuleTree.from_json(text).get("layers.126") is None


def test_a_template_has_no_count_and_says_which_names_it_may_lack():
    tree = replace(small(), grade="named", facts={"also": ["q_proj"]})
    assert tree.parameter_count() is None
    assert tree.may_have("q_proj")
    assert not tree.may_have("k_proj")
    assert replace(tree, facts={"open": True}).may_have("k_proj")
    assert not replace(tree, grade="exact").may_have("q_proj")


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_lint_module_tree": 2},
        {"modules": []},
        {"modules": [[0, 0, [[-1, "x"]]]]},
        {"modules": [[0, 0, [[0, "x"]]]]},  # its own child
        {"modules": [[0, 0, [[5, "x"]]]]},
        {"modules": [[0, 0, []], [0, 0, [[0, [0, 10**12]]]]]},
        {"modules": [[0, 0, []], *([0, 0, [[i, [0, 99]]]] for i in range(20))]},  # 100 ** 20
        {"modules": [[0, 0, []], *([0, 0, [[i, "x"]]] for i in range(5000))]},  # 5000 deep
        {"modules": [[0, 0, [], {"groups": "2"}]]},
        {"modules": {"0": []}},
        {"parameters": [{"weight": [2, -1]}]},
        {"parameters": [{"weight": 10**9}]},
        {"parameters": [["weight"]]},
        {"classes": [["Net", "Lin"]]},
        {"grade": "certain"},
        {"dtype": None},
        {"facts": []},
        {"facts": {"input_embeddings": 3}},
        {"shared": {"a": 1}},
        {"tied": [["a"]]},
        {"tied": [[["a"], [1]]]},
    ],
)
def test_another_shape_of_file_is_a_value_error(changes):
    data = {**json.loads(small().to_json()), **changes}
    with pytest.raises(ValueError):
        ModuleTree.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"x"', "{}", "[" * 100_000])
def test_another_file_is_a_value_error(text):
    with pytest.raises(ValueError):
        ModuleTree.from_json(text)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_a_tree_or_a_value_error(data):
    tree = json.loads(small().to_json())
    key = data.draw(st.sampled_from(sorted(tree)))
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
        max_leaves=6,
    )
    tree[key] = data.draw(anything)
    try:
        read = ModuleTree.from_json(json.dumps(tree))
    except ValueError:
        return
    assert list(read.named_modules())
    read.parameter_count()
