"""What several processes hold, against torch's own: a process of several, its collectives left out
(torch's fake process group), gathers, divides and frees as it would on GPUs.
"""

from __future__ import annotations

import gc
from functools import partial

import pytest
import torch
import torch.distributed as dist
import transformers
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from lora_lint.memory import Profile, Sharding, estimate_memory
from lora_lint.memory.regime import Run
from lora_lint.memory.shapes import read_shape
from lora_lint.memory.sharding import Shape, Whole, shape_of, shares, step_in
from lora_lint.memory.weights import read_weights
from lora_lint.models import ModuleTree
from tests.memory.models import tree

PROCESSES = 4
QV = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture
def group():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=PROCESSES)
    yield
    dist.destroy_process_group()


def small() -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    return model.requires_grad_(requires_grad=False)


def divided(model, kind):
    """The model as accelerate hands it to FSDP: each layer a unit, the embeddings and the head
    with the last norm units of FSDP2.
    """
    if kind == "fsdp1":
        policy = partial(transformer_auto_wrap_policy, transformer_layer_cls={_layer(model)})
        return FullyShardedDataParallel(
            model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
        )
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model.model.embed_tokens)
    fully_shard([model.model.norm, model.lm_head], reshard_after_forward=False)
    return fully_shard(model)


def _layer(model):
    return type(model.model.layers[0])


def alive() -> int:
    """Bytes of all 16-bit tensors that Python holds."""
    sizes = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and not thing.is_meta:
            inner = thing.to_local() if hasattr(thing, "to_local") else thing
            if inner.dtype == torch.bfloat16:
                storage = inner.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2"])
def test_what_fsdp_gathers_lies_within_the_range(group, kind):
    model = small()
    shape = ModuleTree.from_model(model)
    described, weights = read_shape(shape), read_weights(shape)
    assert not isinstance(described, str)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    before = alive()
    model = divided(model.train(), kind)
    held = []
    for name, module in model.named_modules():
        if name.endswith(("1.mlp.gate_proj", "1._fsdp_wrapped_module.mlp.gate_proj", "lm_head")):
            module.register_forward_hook(lambda *_: held.append(alive()))
    token = torch.zeros(1, 1, dtype=torch.long)
    model(input_ids=token, labels=token, use_cache=False).loss.backward()
    assert len(held) == 3  # a checkpointed layer is computed twice

    run = Run(1, 1, autocast=True)
    whole = Whole(weights.size(weight_bytes=2, plain_bytes=2, quantized=None, double_quant=False),
                  0, 0, 0, 0.0)  # fmt: skip
    low, high = shares(
        whole, Sharding(kind, PROCESSES, half=True), shape_of(described, weights, run), run
    )
    others = before - whole.weights  # of other tests
    tokens = 0.01 * whole.weights  # activations of one token
    assert low.weights <= max(held) - others + tokens
    assert max(held) - others <= high.weights + tokens


def test_ddps_buckets_hold_all_gradients_once_more(group):
    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.Linear(8, 64))
    model[0].requires_grad_(requires_grad=False)
    wrapped = DistributedDataParallel(model)
    buckets = {}

    def look(_state, bucket):
        buckets[bucket.buffer().data_ptr()] = bucket.buffer().nbytes
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped.register_comm_hook(None, look)
    wrapped(torch.ones(2, 64)).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = {p.grad.untyped_storage().data_ptr() for p in trained}
    assert not gradients & buckets.keys()
    count = sum(p.numel() for p in trained)
    share, _ = shares(Whole(0.0, count, 0, 0, 0.0), Sharding("ddp"), None, Run(1, 1))
    assert share.buffers == sum(buckets.values())
    assert share.gradients == 1.0


# DeepSpeed 0.19.8 on the first of four processes, collectives faked: 32,768 frozen and 1,024
# trained parameters, bf16, reduce_bucket_size 5,000. Its optimizer held 256 fp32 parameters; the
# bucket had 5,000 values of 16 bit, twice with overlap_comm; at stage 3 the process held 8,448 of
# all 33,792 parameters, and 256 gradients. One bucket at stage 2 was not run: without overlap_comm
# the second is not made (stage_1_and_2.py).
SEEN = Whole(weights=2 * 32768.0, adapters=1024, saved=0, frozen=0, states=0.0)


@pytest.mark.parametrize(("stage", "buckets"), [("zero2", 1), ("zero2", 2), ("zero3", 1)])
def test_what_deepspeed_itself_held_and_by_its_source_without_overlap(stage, buckets):
    sharding = Sharding(
        stage, PROCESSES, half=True, bucket=5000, buckets=buckets, live=0, prefetch=0
    )
    shape = Shape(0.0, 0.0, 0.0, 0.0, largest=0.0)
    low, high = shares(SEEN, sharding, shape, Run(1, 1, adapter_bytes=2))
    assert low.optimizer == high.optimizer == 4 * 256
    assert low.buffers == high.buffers == 2 * 5000 * buckets
    assert low.gradients * 1024 == 256
    if stage == "zero3":
        assert low.weights + low.adapters == 2 * 8448


# DeepSpeed: figures by its documentation of what a stage divides ---------------------------------

WHOLE = Whole(weights=8000.0, adapters=100, saved=0, frozen=0, states=800.0)
SHAPE = Shape(layer=800.0, outer=1600.0, head=800.0, quantized=0.0, largest=300.0)


@pytest.mark.parametrize("stage", ["zero1", "zero2"])
def test_stages_1_and_2_divide_what_the_optimizer_holds_and_no_weights(stage):
    sharding = Sharding(stage, 4, half=True, bucket=50)
    run = step_in(Run(1, 1, autocast=True), sharding)
    low, high = shares(WHOLE, sharding, SHAPE, run)
    assert low == high
    assert low.weights == WHOLE.weights
    assert low.adapters == 200  # 16 bit, whole
    assert low.optimizer == (400 + 800) / 4  # fp32 copies and states
    assert low.buffers == 100  # a bucket of 50 parameters of 16 bit
    assert low.gradients == (1.0 if stage == "zero1" else 0.25)


def test_offloading_the_optimizer_leaves_nothing_of_it():
    sharding = Sharding("zero2", 4, half=True, states_on_host=True)
    _, high = shares(WHOLE, sharding, SHAPE, Run(1, 1, adapter_bytes=2))
    assert high.optimizer == high.gradients == 0


def test_stage_3_divides_the_weights_too():
    sharding = Sharding("zero3", 4, half=True, bucket=0, prefetch=100, live=500)
    low, high = shares(WHOLE, sharding, SHAPE, Run(1, 1))
    assert low.weights == 2000 + 300  # its part, and the module at hand
    assert high.weights == 2000 + 2 * 600 + 300  # and what is kept and fetched ahead
    away = sharding._replace(weights_on_host=True)
    assert shares(WHOLE, away, SHAPE, Run(1, 1))[1].weights == high.weights - 2000


def test_no_part_is_more_than_all_the_weights_at_a_time():
    sharding = Sharding("zero3", 4, half=True)
    _, high = shares(WHOLE, sharding, SHAPE, Run(1, 1))
    assert high.weights == 2000 + 8000


@pytest.mark.parametrize("kind", ["zero3", "fsdp2"])
def test_4_bit_weights_in_uint8_are_not_divided(kind):
    shape = SHAPE._replace(quantized=7000.0)
    run = Run(1, 1, quantized="nf4")
    trap = Sharding(kind, 4, half=True, splits=False, bucket=0, live=0, prefetch=0)
    low, _ = shares(WHOLE, trap, shape, run)
    assert low.weights >= 7000
    divided_low, _ = shares(WHOLE, trap._replace(splits=True), shape, run)
    assert divided_low.weights < 4000


# In an estimate ----------------------------------------------------------------------------------


def estimate(sharding=None, **settings):
    given = {"dtype": "bfloat16", "max_length": 512, "gradient_checkpointing": True}
    profile = Profile(autocast=True, outputs_kept=False, kbit_preparation=False)
    return estimate_memory(
        tree("llama-2-7b"), QV, profile=profile, sharding=sharding, **given | settings
    )


@pytest.mark.parametrize("kind", ["zero3", "fsdp1", "fsdp2"])
def test_twice_the_processes_halve_the_weights_but_for_what_is_gathered(kind):
    four, eight = (estimate(Sharding(kind, n)).bytes["weights"] for n in (4, 8))
    weights = estimate().bytes["weights"]
    assert four - eight == pytest.approx(weights / 4 - weights / 8, rel=1e-6)


def test_zero_2_saves_megabytes_of_a_lora_run():
    """DeepSpeed's users expect more: only adapters have states that could be divided."""
    one = estimate(Sharding("zero2", 1, bucket=0))
    eight = estimate(Sharding("zero2", 8, bucket=0))
    assert 0 < one.peak - eight.peak < 16 * 4_194_304


def test_deepspeeds_default_bucket_is_a_gibibyte_or_so():
    default, small_one = (estimate(Sharding("zero2", 2, bucket=b)) for b in (500_000_000, 0))
    assert default.peak - small_one.peak == 10**9


def test_ddp_needs_a_little_more_than_one_process():
    alone, together = estimate(), estimate(Sharding("ddp", 8))
    assert 0 < together.peak - alone.peak <= 4 * 4_194_304
    assert together.high > alone.high


def test_what_does_not_fit_one_of_the_gpus_that_share_it_is_out_of_memory():
    gpu = "24GB:2"
    assert estimate(gpu=gpu, max_length=16384).verdict == "unknown"
    assert estimate(Sharding("fsdp2", 2), gpu=gpu, max_length=65536).verdict == "oom"
    assert estimate(Sharding("fsdp2", 2), gpu=gpu).verdict == "fits"


def test_parts_add_up():
    result = estimate(Sharding("zero3", 4), per_device_train_batch_size=1)
    assert sum(result.bytes.values()) == result.peak
    assert result.low <= result.peak <= result.high
