"""What tools/refresh_catalogue.py makes of two catalogues."""

from __future__ import annotations

from tools.refresh_catalogue import State, regraded, renamed, wrong

CLASSES = {"vit ViTModel": ["layer.*.query", "layer.*.key"], "old OldModel": ["a"]}
MODELS = {"org/a": ("exact", 10), "org/b": ("dims", 20), "org/c": ("named", None)}
BEFORE = State(CLASSES, MODELS, {"org/a": 10})


def test_the_same_catalogue_is_not_wrong():
    assert [*renamed(BEFORE, BEFORE), *regraded(BEFORE, BEFORE), *wrong(BEFORE, BEFORE)] == []


def test_names_that_came_and_went():
    classes = {"vit ViTModel": ["layer.*.q_proj", "layer.*.key"], "new NewModel": ["b", "c"]}
    assert list(renamed(BEFORE, BEFORE._replace(classes=classes))) == [
        "added: new NewModel, 2 names",
        "removed: old OldModel",
        "vit ViTModel: - layer.*.query",
        "vit ViTModel: + layer.*.q_proj",
    ]


def test_models_that_came_or_were_graded_otherwise():
    models = {**MODELS, "org/c": ("dims", 30), "org/d": ("exact", 5)}
    assert list(regraded(BEFORE, BEFORE._replace(models=models))) == [
        "org/c: named -> dims",
        "added: org/d, exact",
    ]


def test_a_count_that_is_off_fails():
    models = {"org/a": ("exact", 11), "org/b": ("named", None)}
    assert list(wrong(BEFORE, BEFORE._replace(models=models))) == [
        "org/a has 11 parameters, before 10",
        "org/b has lost its sizes (dims -> named)",
        "org/c is known no more",
        "org/a has 11 parameters, published 10",
    ]
