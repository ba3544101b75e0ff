"""The toy models of PEFT's own tests, built from the lists of their layers in peft_tables.json.

Only the names and shapes of the layers count here: nothing runs forward. This module is imported in
the environment of every PEFT release, so it needs nothing but torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D


class Toy(nn.Module):
    """A model that has the given layers, one after the other."""

    def __init__(self, /, **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class CausalToy(Toy):
    """One that can be given the task CAUSAL_LM."""

    def prepare_inputs_for_generation(self) -> None:
        """Its presence is what counts."""


class TiedToy(CausalToy):
    """Embeddings and a head that share their weight, as transformers 5 describes it."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings, as transformers calls them."""
        return self.model.embed_tokens


class OnlyParameters(nn.Module):
    """A linear layer that is none for PEFT."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.ones(outputs))


def config(model_type: str, **values: object) -> transformers.PretrainedConfig:
    """A config of a model type, whether or not the installed transformers has it."""
    kind = type("ToyConfig", (transformers.PretrainedConfig,), {"model_type": model_type})
    return kind(**values)


def rest() -> dict[str, nn.Module]:
    """What stands between the layers of most toys."""
    return {"relu": nn.ReLU(), "flat": nn.Flatten(), "sm": nn.LogSoftmax(dim=-1)}


def mlp(inner: int = 20, linear: Callable[[int, int], nn.Module] = nn.Linear) -> nn.Module:
    """Two linear layers."""
    return Toy(
        lin0=linear(10, inner),
        relu=nn.ReLU(),
        drop=nn.Dropout(0.5),
        lin1=linear(inner, 2),
        sm=nn.LogSoftmax(dim=-1),
    )


def named(name: str) -> nn.Module:
    """A model whose only layer has this name."""
    layer: nn.Module = nn.Linear(4, 4)
    for part in reversed(name.split(".")):
        layer = Toy(**{part: layer})
    return layer


def stack(layer: Callable[[], nn.Module], count: int) -> nn.ModuleList:
    """Equal layers in a list."""
    return nn.ModuleList(layer() for _ in range(count))


def block(size: int = 10) -> nn.Module:
    """A layer of the deep toy."""
    return Toy(
        lin0=nn.Linear(size, size),
        relu=nn.ReLU(),
        drop=nn.Dropout(0.5),
        lin1=nn.Linear(size, size),
    )


def three_kinds(*, bias: bool = True) -> nn.Module:
    """A linear layer, embeddings and a convolution."""
    return Toy(
        linear=nn.Linear(40, 40, bias=bias),
        embed=nn.Embedding(40, 40),
        conv2d=nn.Conv2d(20, 20, 3, bias=bias),
    )


def attention_layers(count: int) -> nn.Module:
    """Layers with q_proj, k_proj and v_proj under ``layers.N.self_attn``."""
    names = ("q_proj", "k_proj", "v_proj")
    return Toy(
        layers=stack(lambda: Toy(self_attn=Toy(**{n: nn.Linear(8, 8) for n in names})), count)
    )


def mixture() -> nn.Module:
    """Layers with experts that are numbered too."""

    def layer() -> nn.Module:
        experts = stack(lambda: Toy(up_proj=nn.Linear(4, 4)), 2)
        return Toy(self_attn=Toy(q_proj=nn.Linear(4, 4)), mlp=Toy(experts=experts))

    return Toy(model=Toy(layers=stack(layer, 2)))


def mamba(model_type: str) -> nn.Module:
    """The layers that LoRA must not touch in such a model."""
    mixer = Toy(
        in_proj=nn.Linear(4, 4), out_proj=nn.Linear(4, 4), conv1d=nn.Conv1d(4, 4, 2, groups=4)
    )
    model = CausalToy(backbone=Toy(layers=nn.ModuleList([Toy(mixer=mixer)])))
    model.config = config(model_type)
    return model


def tied(*, says_so: bool = True) -> nn.Module:
    """A head that shares the embeddings' weight, and a config that says so or not."""
    inner = Toy(embed_tokens=nn.Embedding(12, 12), linear=nn.Linear(12, 12, bias=False))
    model = TiedToy(model=inner, lm_head=nn.Linear(12, 12, bias=False))
    model.lm_head.weight = inner.embed_tokens.weight
    model.config = config("toy", tie_word_embeddings=says_so)
    return model


# The models whose layer lists stand in peft_tables.json, and those that single tests define.
MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP": mlp,
    "MLP2": lambda: mlp(32),
    "MLPWithGRU": lambda: Toy(
        lin0=nn.Linear(10, 20),
        gru=nn.GRU(input_size=20, hidden_size=20, num_layers=1, batch_first=True),
        fc=nn.Linear(20, 2),
        drop=nn.Dropout(0.5),
        **rest(),
    ),
    "MLP_LayerNorm": lambda: Toy(
        layernorm0=nn.LayerNorm(10, 10),
        lin0=nn.Linear(10, 20),
        drop=nn.Dropout(0.5),
        layernorm1=nn.LayerNorm(20, 20),
        lin1=nn.Linear(20, 2),
        **rest(),
    ),
    "Block": block,
    "DeepMLP": lambda: Toy(layers=stack(block, 12), out=nn.Linear(10, 2), sm=nn.LogSoftmax(dim=-1)),
    "ModelEmbConv1D": lambda: Toy(
        emb=nn.Embedding(100, 5), conv1d=Conv1D(1, 5), lin0=nn.Linear(10, 2), **rest()
    ),
    "ModelEmbWithEmbeddingUtils": lambda: Toy(
        embed_tokens=nn.Embedding(100, 5), conv1d=Conv1D(1, 5), lin0=nn.Linear(10, 2), **rest()
    ),
    "ModelEmbWithSibling": lambda: Toy(
        embed_tokens=nn.Embedding(100, 5),
        embed_tokens_extra=nn.Embedding(100, 5),
        lin0=nn.Linear(5, 2),
    ),
    "ModelConv1D": lambda: Toy(conv1d=nn.Conv1d(1, 1, 2), lin0=nn.Linear(9, 2), **rest()),
    "ModelConv1DBigger": lambda: Toy(conv1d=nn.Conv1d(64, 16, 2), lin0=nn.Linear(144, 2), **rest()),
    "ModelConv1DGroups": lambda: Toy(
        conv1d=nn.Conv1d(8, 8, 3, groups=2), lin0=nn.Linear(64, 2), **rest()
    ),
    "ModelConv1DKernel1": lambda: Toy(
        conv1d=nn.Conv1d(3, 10, kernel_size=1), lin0=nn.Linear(100, 2), **rest()
    ),
    "ModelConv2D": lambda: Toy(conv2d=nn.Conv2d(5, 10, 3), lin0=nn.Linear(10, 2), **rest()),
    "ModelConv2D2": lambda: Toy(
        lin0=nn.Linear(10, 40), conv2d=nn.Conv2d(8, 32, 3), lin1=nn.Linear(32, 2), **rest()
    ),
    "ModelConv2D1x1": lambda: Toy(
        conv2d=nn.Conv2d(1, 10, kernel_size=(1, 1)), lin0=nn.Linear(90, 2), **rest()
    ),
    "ModelConv2DGroups": lambda: Toy(
        lin0=nn.Linear(90, 288),
        conv2d=nn.Conv2d(16, 16, 3, groups=8),
        lin1=nn.Linear(16, 2),
        **rest(),
    ),
    "ModelConv2DGroups2": lambda: Toy(
        conv2d=nn.Conv2d(16, 32, 3, padding=1, groups=2), lin0=nn.Linear(12800, 2), **rest()
    ),
    "ModelConv3D": lambda: Toy(conv3d=nn.Conv3d(5, 10, 3), lin0=nn.Linear(10, 2), **rest()),
    "ModelMha": lambda: Toy(mha=nn.MultiheadAttention(10, 2), lin0=nn.Linear(10, 2), **rest()),
    "_LinearUsingParameter": lambda: OnlyParameters(10, 20),
    "MlpUsingParameters": lambda: mlp(20, OnlyParameters),
    "MLP_2x_same_shape": lambda: Toy(
        relu=nn.ReLU(),
        lin0=nn.Linear(10, 20),
        lin1=nn.Linear(20, 20),
        lin2=nn.Linear(20, 20),
        lin3=nn.Linear(20, 2),
        sm=nn.LogSoftmax(dim=-1),
    ),
    "three kinds": three_kinds,
    "three kinds without bias": lambda: three_kinds(bias=False),
    "narrow": lambda: Toy(linear=nn.Linear(10, 2)),
    "twice the same": lambda: nn.Sequential(*[three_kinds()] * 2),
    "attention": lambda: attention_layers(5),
    "mixture": mixture,
    "odd names": lambda: Toy(trunk=Toy(stages=stack(lambda: Toy(mix=nn.Linear(4, 4)), 3))),
    "separate qkv": lambda: Toy(mha=nn.MultiheadAttention(10, 2, kdim=20, vdim=30)),
    "odd groups": lambda: Toy(conv=nn.Conv2d(12, 12, 3, groups=3)),
    "falcon_mamba": lambda: mamba("falcon_mamba"),
    "nemotron_h": lambda: mamba("nemotron_h"),
    "tied": tied,
    "tied, unsaid": lambda: tied(says_so=False),
    "parameter on top": lambda: Toy(param=nn.Parameter(torch.randn(4, 4))),
}


def build(name: str) -> nn.Module:
    """A toy, a model of one layer (``named:a.b``) or one of the oracle's models (``real:gpt2``)."""
    torch.manual_seed(0)
    kind, _, rest_of_name = name.partition(":")
    if kind == "named":
        return named(rest_of_name)
    if kind == "real":
        from tests.oracle.models import MODELS as REAL

        return REAL[rest_of_name]()
    return MODELS[name]()
