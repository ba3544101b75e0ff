from __future__ import annotations

import re

import pytest

from lora_lint.memory import parse_gpu
from lora_lint.memory.gpus import GIB, LEAST_SHARE, gpu_facts


@pytest.mark.parametrize(
    "text",
    ["rtx4090", "RTX 4090", "RTX-4090", "NVIDIA GeForce RTX 4090", "4090", " rtx4090 "],
)
def test_a_name_is_read_however_it_is_spelled(text):
    assert parse_gpu(text).name == "NVIDIA GeForce RTX 4090"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Tesla T4", "NVIDIA T4"),
        ("t4", "NVIDIA T4"),
        ("h100", "NVIDIA H100 80GB"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100 80GB"),
        ("Tesla V100-SXM2-32GB", "NVIDIA V100 32GB"),
        ("NVIDIA RTX A6000", "NVIDIA RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 6000 Ada Generation"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX PRO 4000 Blackwell", "NVIDIA RTX PRO 4000 Blackwell"),
        ("NVIDIA GeForce GTX 1080", "NVIDIA GeForce GTX 1080"),
        ("NVIDIA GeForce RTX 4070 SUPER", "NVIDIA GeForce RTX 4070 SUPER"),
        ("NVIDIA GB10", "NVIDIA GB10 (DGX Spark)"),
        ("AMD Instinct MI300X", "AMD Instinct MI300X"),
        ("mi250x", "AMD Instinct MI250X"),
    ],
)
def test_what_nvidia_smi_prints_is_a_name(text, name):
    assert parse_gpu(text).name == name


def test_count_stands_after_a_colon():
    gpu = parse_gpu("a100-80gb:8")
    assert (gpu.name, gpu.count) == ("NVIDIA A100 80GB", 8)
    assert parse_gpu("24GB:2").count == 2


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24), ("24GiB", 24), ("24 gb", 24), ("80g", 80)]
)
def test_a_size_is_nominal_and_counted_in_powers_of_two(text, size):
    gpu = parse_gpu(text)
    assert gpu.nominal_bytes == gpu.usable_bytes == size * 2**30
    assert gpu.capability is None


def test_of_a_bare_size_only_part_is_certain():
    """A T4 and an A10G are sold as 16 and 24 GB and report 14.56 and 22.06 GiB."""
    assert parse_gpu("16GB").least_bytes <= 14.57 * GIB
    assert parse_gpu("24GB").least_bytes <= 22.06 * GIB


@pytest.mark.parametrize(
    ("name", "gib"),
    [  # GiB in CUDA's out-of-memory messages; the issues are linked in data/gpus.json
        ("t4", 14.75),
        ("a100-40gb", 39.56),
        ("a100-80gb", 79.25),
        ("h100", 79.11),
        ("h100-nvl", 93.00),
        ("rtx4090", 23.64),
        ("rtx3090", 23.69),
        ("rtx5090", 31.37),
        ("l40s", 44.42),
        ("v100-32gb", 31.74),
        ("rtx2080ti", 10.76),
        ("rtx3070", 7.78),
        ("gtx1070", 7.93),
        ("gb200", 184.31),
        ("gb10", 121.69),
        ("mi300x", 191.98),
        ("mi325x", 255.98),
        ("mi355x", 287.98),
    ],
)
def test_usable_memory_is_what_cuda_reports(name, gib):
    gpu = parse_gpu(name)
    assert gpu.least_bytes / GIB - 0.01 <= gib <= gpu.usable_bytes / GIB + 0.01
    assert gpu.usable_bytes < gpu.nominal_bytes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtx4099", "did you mean rtx4090?"),
        ("A100", "a100-40gb or a100-80gb"),
        ("NVIDIA GeForce RTX 2060", "rtx2060-6gb or rtx2060-12gb"),
        ("a10O", "did you mean"),
        ("quantum9000", "a size such as 24GB works for any"),
        ("RTX 4090 Laptop GPU", "laptop"),
        ("24", "a size such as 24GB"),
        ("0GB", "no memory"),
        ("a100-80gb:0", "1 or more"),
        ("a100-80gb:many", "1 or more"),
        ("", "unknown GPU"),
    ],
)
def test_what_is_not_a_gpu_is_refused_with_help(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_gpu(text)


def test_capability_tells_what_a_gpu_can():
    assert parse_gpu("t4").has_bf16 is False
    assert parse_gpu("rtx4090").has_bf16 is True
    assert parse_gpu("v100-16gb").has_flash_attention is False
    assert parse_gpu("24GB").has_bf16 is None


@pytest.mark.parametrize("name", ["rtx2060-6gb", "rtx2070", "gtx1660ti", "gtx1080", "rtx2080super"])
def test_before_ampere_there_is_no_bfloat16(name):
    assert parse_gpu(name).has_bf16 is False


@pytest.mark.parametrize("name", ["mi210", "mi250x", "mi300x", "mi325x", "mi355x"])
def test_amds_instinct_cards_compute_in_bfloat16(name):
    """torch reports capability 9.0, 9.4 and 9.5 of gfx90a, gfx942 and gfx950."""
    gpu = parse_gpu(name)
    assert gpu.has_bf16 is True
    assert gpu.has_flash_attention is True


def test_every_product_is_consistent_and_has_a_source():
    for key, data in gpu_facts()["gpus"].items():
        gpu = parse_gpu(key)
        assert 0 < gpu.least_bytes <= gpu.usable_bytes <= gpu.nominal_bytes, key
        assert gpu.least_bytes >= LEAST_SHARE * gpu.nominal_bytes - 1, key
        assert gpu.source, key
        for alias in data["aliases"]:
            assert parse_gpu(alias) == gpu
    for choices in gpu_facts()["several"].values():
        assert all(parse_gpu(choice) for choice in choices)
