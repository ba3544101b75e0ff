"""The PEFT and transformers that the user trains with are found in files beside the config."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lora_lint.environment import Version, find_environment

# Shorter than the real lists: a hole is no matter, the order is.
RELEASES = {
    "peft": ("0.6.0", "0.7.0", "0.7.1", "0.8.0", "0.8.2", "0.9.0", "0.10.0", "0.21.2"),
    "transformers": ("4.36.0", "4.40.0", "4.46.3", "5.0.0", "5.23.0"),
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The root of a repository."""
    (tmp_path / ".git").mkdir()
    return tmp_path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def install(environment: Path, package: str, version: str, lib: str = "lib/python3.12") -> None:
    write(
        environment / lib / "site-packages" / f"{package}-{version}.dist-info" / "METADATA",
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nLicense: Apache\n\n"
        "# About\nVersion: 9.9\n",
    )


def peft(folder: Path) -> Version | None:
    return find_environment(folder, RELEASES)[0]


def bounds(known: Version | None) -> tuple[str, str, str] | None:
    return None if known is None else (known.version, known.first, known.last)


def exactly(version: str) -> tuple[str, str, str]:
    return version, version, version


def test_a_version_is_its_own_bound() -> None:
    version = Version("0.7.1", "--peft-version")
    assert (version.first, version.last, version.exact) == ("0.7.1", "0.7.1", True)
    assert not Version(">=0.7,<0.9", "requirements.txt", "0.7.0", "0.8.2").exact


# Specifiers ---------------------------------------------------------------------------------------

SPECIFIERS = {
    "==0.7.1": exactly("0.7.1"),
    " == 0.7.1": exactly("0.7.1"),
    "===0.7.1": exactly("0.7.1"),
    # The same release, as PEFT calls it.
    "==0.7": exactly("0.7.0"),
    "==0.7.1.0": exactly("0.7.1"),
    # Releases that the facts do not know are still what is written.
    "==0.30.0": exactly("0.30.0"),
    "==0.8.0rc1": exactly("0.8.0rc1"),
    "==0.22.0.dev0": exactly("0.22.0.dev0"),
    "==0.7.1+cu121": exactly("0.7.1+cu121"),
    ">=0.7,<0.9": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "<0.9, >=0.7": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "(>=0.7,<0.9)": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    ">0.7.1,<=0.9": (">0.7.1,<=0.9", "0.8.0", "0.9.0"),
    ">=0.7": (">=0.7", "0.7.0", "0.21.2"),
    "<0.8": ("<0.8", "0.6.0", "0.7.1"),
    "==0.7.*": ("==0.7.*", "0.7.0", "0.7.1"),
    "~=0.7.0": ("~=0.7.0", "0.7.0", "0.7.1"),
    "~=0.7": ("~=0.7", "0.7.0", "0.21.2"),
    ">=0.7,!=0.7.0": (">=0.7,!=0.7.0", "0.7.1", "0.21.2"),
    ">=0.8.0rc1,<0.9": (">=0.8.0rc1,<0.9", "0.8.0", "0.8.2"),
    # 0.10 is newer than 0.9.
    ">=0.9,<0.11": (">=0.9,<0.11", "0.9.0", "0.10.0"),
    "[train]==0.7.1": exactly("0.7.1"),
    "[a,b]>=0.7,<0.9 ; python_version < '3.12'": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    # Nothing known is admitted: the bound is the best guess.
    ">=0.30": (">=0.30", "0.30", "0.30"),
    ">0.21.2": (">0.21.2", "0.21.2", "0.21.2"),
    "==0.30.*": ("==0.30.*", "0.30", "0.30"),
    # Everything known is admitted: nothing is learnt.
    "": None,
    ">=0": None,
    "!=0.8.0": None,
    # Not what pip takes.
    "=0.7.1": None,
    ">=banana": None,
    ">=0.7.*": None,
}


@pytest.mark.parametrize("specifier", SPECIFIERS)
def test_a_specifier_admits_releases(project: Path, specifier: str) -> None:
    write(project / "requirements.txt", f"peft{specifier}\n")
    assert bounds(peft(project)) == SPECIFIERS[specifier]


@pytest.mark.parametrize("name", ["peft", "PEFT", "Peft"])
def test_names_are_compared_normalised(project: Path, name: str) -> None:
    write(project / "requirements.txt", f"{name}==0.7.1\n")
    assert peft(project) == Version("0.7.1", "requirements.txt")


@pytest.mark.parametrize(
    "line",
    ["peft-extras==0.7.1", "peft.more==0.7.1", "my-peft==0.7.1", "peftx==0.7.1", "peft_==0.7.1"],
)
def test_other_packages_are_others(project: Path, line: str) -> None:
    write(project / "requirements.txt", f"{line}\n")
    assert peft(project) is None


# Requirements files -------------------------------------------------------------------------------

REQUIREMENTS = {
    "comment": ("# peft==0.6.0\npeft==0.7.1 # not ==0.8.0\n", exactly("0.7.1")),
    "commented": ("#peft==0.6.0\n", None),
    "continued": (
        "peft==0.7.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n",
        exactly("0.7.1"),
    ),
    "continued name": ("peft\\\n==0.7.1\n", exactly("0.7.1")),
    "comment goes on": ("# off \\\npeft==0.7.1\n", exactly("0.7.1")),
    "comment in the midst": ("peft==0.7.1 \\\n# why\ntransformers\n", exactly("0.7.1")),
    "no newline": ("torch\npeft==0.7.1", exactly("0.7.1")),
    "windows": ("torch\r\npeft==0.7.1 \\\r\n  --hash=sha256:aa\r\n", exactly("0.7.1")),
    "byte order mark": ("\ufeffpeft==0.7.1\n", exactly("0.7.1")),
    "utf-16": ("peft==0.7.1\r\n".encode("utf-16"), exactly("0.7.1")),
    "latin-1": ("# für alle\npeft==0.7.1\n".encode("latin-1"), exactly("0.7.1")),
    "options": (
        "--index-url https://pypi.example/simple\n-f wheels\n--pre\npeft==0.7.1\n",
        exactly("0.7.1"),
    ),
    "markers": (
        "peft==0.7.1; python_version < '3.9'\npeft==0.9.0; python_version >= '3.9'\n",
        ("0.7.1 to 0.9.0", "0.7.1", "0.9.0"),
    ),
    "one range holds the other": (
        "peft>=0.7,<0.9; sys_platform == 'linux'\npeft==0.8.0; sys_platform == 'win32'\n",
        (">=0.7,<0.9", "0.7.0", "0.8.2"),
    ),
    "twice the same": ("peft==0.7.1\npeft==0.7.1\n", exactly("0.7.1")),
    "bare beside a version": ("peft\npeft==0.7.1\n", exactly("0.7.1")),
    "broken line": ("peft ==== 1\npeft==0.7.1\n", exactly("0.7.1")),
    "options behind": ("peft==0.7.1 -C a=b --config-settings c=d\n", exactly("0.7.1")),
    "nonsense": ("<<<<<<< HEAD\n{%\npeft==0.7.1\n", exactly("0.7.1")),
}


@pytest.mark.parametrize("case", REQUIREMENTS)
def test_requirements_are_read_as_pip_reads_them(project: Path, case: str) -> None:
    text, expected = REQUIREMENTS[case]
    write(project / "requirements.txt", text)
    assert bounds(peft(project)) == expected


@pytest.mark.parametrize(
    "option",
    [
        "-r base.txt",
        "-rbase.txt",
        "--requirement base.txt",
        "--requirement=base.txt",
        "-r 'base.txt'",
    ],
)
def test_included_files_are_read(project: Path, option: str) -> None:
    write(project / "requirements.txt", f"{option}\n")
    write(project / "base.txt", "peft==0.7.1\n")
    # The file that is used is the one that counts.
    assert peft(project) == Version("0.7.1", "requirements.txt")


def test_includes_are_relative_to_their_file_and_may_be_circular(project: Path) -> None:
    write(
        project / "requirements.txt", "-r deps/base.txt\n-r missing.txt\n-r https://a.example/b\n"
    )
    write(project / "deps" / "base.txt", "-r more.txt\n-r ../requirements.txt\n")
    write(project / "deps" / "more.txt", "peft==0.7.1\n-r more.txt\n")
    assert peft(project) == Version("0.7.1", "requirements.txt")


@pytest.mark.parametrize(
    ("requirement", "constraint", "expected"),
    [
        ("peft", "peft==0.7.1", exactly("0.7.1")),
        ("peft>=0.7", "peft<0.9", (">=0.7,<0.9", "0.7.0", "0.8.2")),
        # Another package brings it along.
        ("trl", "peft==0.7.1", exactly("0.7.1")),
        ("peft>=0.7", "torch<3", (">=0.7", "0.7.0", "0.21.2")),
        ("peft>=0.7", "peft @ git+https://github.com/huggingface/peft", None),
    ],
)
def test_constraints_narrow(
    project: Path, requirement: str, constraint: str, expected: tuple[str, str, str] | None
) -> None:
    write(project / "requirements.txt", f"-c constraints.txt\n{requirement}\n")
    write(project / "constraints.txt", f"{constraint}\n")
    assert bounds(peft(project)) == expected


LOCATIONS = {
    "peft @ https://host.example/peft-0.7.1-py3-none-any.whl": "0.7.1",
    "peft @ https://host.example/peft-0.7.1-py3-none-any.whl#sha256=ab": "0.7.1",
    "peft @ https://host.example/peft-0.7.1%2Bcu121-py3-none-any.whl": "0.7.1+cu121",
    "peft @ https://host.example/peft-0.7.1.tar.gz": "0.7.1",
    "https://host.example/peft-0.7.1-py3-none-any.whl": "0.7.1",
    "./wheels/peft-0.7.1-py3-none-any.whl": "0.7.1",
    "peft-0.7.1-py3-none-any.whl": "0.7.1",
    "peft @ git+https://github.com/huggingface/peft@v0.7.1": "0.7.1",
    "peft@git+https://github.com/huggingface/peft.git@v0.7.1": "0.7.1",
    "peft @ git+https://github.com/huggingface/peft.git@refs/tags/v0.7.1": "0.7.1",
    "peft[a] @ git+ssh://git@github.com/huggingface/peft.git@v0.7.1 ; os_name == 'nt'": "0.7.1",
    "git+https://github.com/huggingface/peft@v0.7.1": "0.7.1",
    "git+https://github.com/huggingface/peft@v0.8.0rc1": "0.8.0rc1",
    "git+https://github.com/huggingface/peft.git@v0.7.1#egg=peft": "0.7.1",
    "-e git+https://github.com/huggingface/peft.git@v0.7.1#egg=peft": "0.7.1",
    "https://github.com/huggingface/peft/archive/refs/tags/v0.7.1.tar.gz": "0.7.1",
    # No release: what else may say is passed over.
    "peft @ git+https://github.com/huggingface/peft": None,
    "peft @ git+https://github.com/huggingface/peft@main": None,
    "peft @ git+https://github.com/huggingface/peft@0123456": None,
    "peft @ git+https://github.com/huggingface/peft@v0.7-release": None,
    "peft @ git+https://github.com/huggingface/peft@v0.7.1_patched": None,
    "git+https://github.com/huggingface/peft": None,
    "git+https://github.com/huggingface/peft.git@fix/rank": None,
    "git+ssh://git@github.com/huggingface/peft.git": None,
    "-e git+https://github.com/someone/fork.git#subdirectory=a&egg=peft": None,
    "--editable ./peft": None,
    "-e ../peft[train]": None,
    "./peft/": None,
    "peft @ file:///opt/peft": None,
    "https://github.com/huggingface/peft/archive/main.zip": None,
}


@pytest.mark.parametrize("line", LOCATIONS)
def test_a_location_is_a_release_or_none(project: Path, line: str) -> None:
    write(project / "requirements.txt", f"torch\n{line}\n")
    install(project / ".venv", "peft", "0.9.0")
    assert bounds(peft(project)) == ((v := LOCATIONS[line]) and exactly(v))


@pytest.mark.parametrize(
    "line", ["-e .", "git+https://github.com/a/trl", "./x-1.0.tar.gz", "-e", "@"]
)
def test_other_locations_are_others(project: Path, line: str) -> None:
    write(project / "requirements.txt", f"{line}\n")
    install(project / ".venv", "peft", "0.9.0")
    assert peft(project) == Version("0.9.0", ".venv")


def test_a_location_hides_only_its_own_package(project: Path) -> None:
    write(project / "requirements.txt", "git+https://github.com/huggingface/peft\n")
    write(
        project / "pyproject.toml", "[project]\ndependencies = ['peft==0.7.1', 'transformers<5']\n"
    )
    assert find_environment(project, RELEASES) == (
        None,
        Version("<5", "pyproject.toml", "4.36.0", "4.46.3"),
    )


# Lock files ---------------------------------------------------------------------------------------

UV_LOCK = """\
version = 1
revision = 3
requires-python = ">=3.10"
resolution-markers = [
    "python_full_version >= '3.11'",
    "python_full_version < '3.11'",
]

[[package]]
name = "peft"
version = "0.7.1"
source = { registry = "https://pypi.org/simple" }
dependencies = [
    { name = "torch" },
    { name = "transformers", version = "4.36.0", source = { registry = "x" } },
]
wheels = [
    { url = "https://host.example/peft-0.7.1-py3-none-any.whl", hash = "sha256:ab", size = 168 },
]

[[package]]
name = "trainer"
version = "0.1.0"
source = { virtual = "." }
dependencies = [
    { name = "peft" },
]

[package.metadata]
requires-dist = [{ name = "peft", specifier = ">=0.6" }]

[[package]]
name = "transformers"
version = "4.40.0"
source = { registry = "https://pypi.org/simple" }
resolution-markers = [
    "python_full_version < '3.11'",
]

[[package]]
name = "transformers"
version = "5.0.0"
source = { registry = "https://pypi.org/simple" }
resolution-markers = [
    "python_full_version >= '3.11'",
]
"""
POETRY_LOCK = """\
# This file is automatically @generated by Poetry 2.1.3 and should not be changed by hand.

[[package]]
name = "peft"
version = "0.7.1"
description = "Many a [[package]] has a description"
optional = false
python-versions = ">=3.8.0"
groups = ["main"]
files = [
    {file = "peft-0.7.1-py3-none-any.whl", hash = "sha256:ab"},
]

[package.dependencies]
transformers = "*"

[package.extras]
test = ["parameterized"]

[[package]]
name = "transformers"
version = "4.40.0"
description = ""
optional = false
python-versions = ">=3.8.0"
files = []

[[package]]
name = "transformers"
version = "5.0.0"
description = ""
optional = false
python-versions = ">=3.10.0"
files = []

[metadata]
lock-version = "2.1"
python-versions = "^3.10"
content-hash = "ab"
"""
PDM_LOCK = """\
# This file is @generated by PDM.

[metadata]
groups = ["default"]
strategy = ["inherit_metadata"]
lock_version = "4.5.0"

[[metadata.targets]]
requires_python = ">=3.10"

[[package]]
name = "peft"
version = "0.7.1"
requires_python = ">=3.8.0"
summary = "…"
groups = ["default"]
dependencies = [
    "transformers",
]
files = [
    {file = "peft-0.7.1-py3-none-any.whl", hash = "sha256:ab"},
]

[[package]]
name = "transformers"
version = "4.40.0"
groups = ["default"]
marker = "python_version < \\"3.11\\""

[[package]]
name = "transformers"
version = "4.40.0"
extras = ["torch"]
groups = ["default"]

[[package]]
name = "transformers"
version = "5.0.0"
groups = ["default"]
marker = "python_version >= \\"3.11\\""
"""
PIXI_4 = """\
version: 4
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    packages:
      linux-64:
      - conda: https://conda.anaconda.org/conda-forge/noarch/peft-0.7.1-pyhd8ed1ab_0.conda
      - pypi: https://host.example/transformers-4.40.0-py3-none-any.whl
packages:
- kind: conda
  name: peft
  version: 0.7.1
  build: pyhd8ed1ab_0
  subdir: noarch
  noarch: python
  url: https://conda.anaconda.org/conda-forge/noarch/peft-0.7.1-pyhd8ed1ab_0.conda
  depends:
  - transformers >=4.36
- kind: pypi
  name: transformers
  version: 4.40.0
  url: https://host.example/transformers-4.40.0-py3-none-any.whl
  requires_dist:
  - peft>=0.6 ; extra == 'all'
- kind: pypi
  name: transformers
  version: '5.0.0'
  url: https://host.example/transformers-5.0.0-py3-none-any.whl
"""
PIXI_6 = """\
version: 6
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    indexes:
    - https://pypi.org/simple
    packages:
      linux-64:
      - conda: https://conda.anaconda.org/conda-forge/noarch/peft-0.7.1-pyhd8ed1ab_0.conda
      - conda: https://conda.anaconda.org/conda-forge/noarch/sentence-transformers-3.0.1-py_0.conda
      - pypi: https://host.example/ab/transformers-4.40.0-py3-none-any.whl
      osx-arm64:
      - conda: https://conda.anaconda.org/conda-forge/noarch/transformers-5.0.0-py_0.tar.bz2
packages:
- conda: https://conda.anaconda.org/conda-forge/noarch/peft-0.7.1-pyhd8ed1ab_0.conda
  depends:
  - transformers >=4.36
- conda: https://conda.anaconda.org/conda-forge/noarch/sentence-transformers-3.0.1-py_0.conda
  depends:
  - transformers >=4.36
- conda: https://conda.anaconda.org/conda-forge/noarch/transformers-5.0.0-py_0.tar.bz2
- pypi: https://host.example/ab/transformers-4.40.0-py3-none-any.whl
  name: transformers
  version: 4.40.0
  requires_python: '>=3.8.0'
"""
LOCKS = {
    "uv.lock": UV_LOCK,
    "poetry.lock": POETRY_LOCK,
    "pdm.lock": PDM_LOCK,
    "pixi.lock": PIXI_4,
    "sub/pixi.lock": PIXI_6,
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_are_exact(project: Path, name: str, ending: str) -> None:
    path = write(project / name, LOCKS[name].replace("\n", ending))
    assert find_environment(path.parent, RELEASES) == (
        Version("0.7.1", path.name),
        Version("4.40.0 to 5.0.0", path.name, "4.40.0", "5.0.0"),
    )


def test_a_locked_commit_has_the_version_that_was_built(project: Path) -> None:
    source = '{ git = "https://github.com/huggingface/peft?rev=main#ab" }'
    write(
        project / "uv.lock",
        f'[[package]]\nname = "peft"\nversion = "0.22.0.dev0"\nsource = {source}\n',
    )
    assert peft(project) == Version("0.22.0.dev0", "uv.lock")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.lock", '[[package]]\nname = "peft"\nsource = { editable = "../peft" }\n'),
        ("pixi.lock", "version: 6\npackages:\n- pypi: ./peft\n  name: peft\n  sha256: ab\n"),
    ],
)
def test_a_locked_folder_is_no_release(project: Path, name: str, text: str) -> None:
    write(project / name, text)
    install(project / ".venv", "peft", "0.9.0")
    assert peft(project) is None


# conda --------------------------------------------------------------------------------------------

MATCH_SPECS = {
    "peft=0.7.1": ("==0.7.1.*", "0.7.1", "0.7.1"),
    "peft=0.7": ("==0.7.*", "0.7.0", "0.7.1"),
    "peft=0.7.*": ("==0.7.*", "0.7.0", "0.7.1"),
    "peft==0.7.1": exactly("0.7.1"),
    "peft 0.7.1": exactly("0.7.1"),
    "peft 0.7.1 pyhd8ed1ab_0": exactly("0.7.1"),
    "peft=0.7.1=pyhd8ed1ab_0": exactly("0.7.1"),
    "peft=0.7.1 pyhd8ed1ab_0": exactly("0.7.1"),
    "peft==0.7.1=pyhd8ed1ab_0": exactly("0.7.1"),
    "peft>=0.7,<0.9=py_0": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "peft 0.7.*": ("==0.7.*", "0.7.0", "0.7.1"),
    "peft 0.7.* py*": ("==0.7.*", "0.7.0", "0.7.1"),
    "peft>=0.7,<0.9": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "peft >=0.7, <0.9": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "peft >= 0.7,<0.9.0a0": (">=0.7,<0.9.0a0", "0.7.0", "0.8.2"),
    "peft >=0.7.*,<0.9": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "peft ~=0.7.0": ("~=0.7.0", "0.7.0", "0.7.1"),
    "peft 0.7.1|0.9.0": ("0.7.1 to 0.9.0", "0.7.1", "0.9.0"),
    "conda-forge::peft=0.7": ("==0.7.*", "0.7.0", "0.7.1"),
    "conda-forge/noarch::peft==0.7.1": exactly("0.7.1"),
    "peft[version='>=0.7,<0.9']": (">=0.7,<0.9", "0.7.0", "0.8.2"),
    "peft[version=0.7.1, build=py_0]": exactly("0.7.1"),
    "peft": None,
    "peft *": None,
    "peft[build=py_0]": None,
    "peft-nightly=0.7": None,
    "pefty 0.7.1": None,
    "peft ?!": None,
}


@pytest.mark.parametrize("spec", MATCH_SPECS)
def test_conda_specifications_are_read(project: Path, spec: str) -> None:
    write(
        project / "environment.yml",
        f'name: train\nchannels: [conda-forge]\ndependencies:\n  - python=3.11\n  - "{spec}"\n',
    )
    assert bounds(peft(project)) == MATCH_SPECS[spec]


@pytest.mark.parametrize("name", ["environment.yml", "environment.yaml"])
def test_the_pip_part_of_a_conda_environment_is_read(project: Path, name: str) -> None:
    write(
        project / "envs" / name,
        "dependencies:\n  - transformers=4.40\n  - pip\n  - pip:\n    - -r ../pinned.txt\n"
        "    - torch\n    - 3\n",
    )
    write(project / "pinned.txt", "peft==0.7.1\n")
    assert find_environment(project / "envs", RELEASES) == (
        Version("0.7.1", name),
        Version("==4.40.*", name, "4.40.0", "4.40.0"),
    )


# pyproject.toml -----------------------------------------------------------------------------------

PROJECTS = {
    "dependencies": (
        "[project]\ndependencies = ['torch', 'peft>=0.7,<0.9']",
        (">=0.7,<0.9", "0.7.0", "0.8.2"),
    ),
    "extras": (
        "[project.optional-dependencies]\na = ['peft==0.7.1']\nb = ['peft==0.9.0']",
        ("0.7.1 to 0.9.0", "0.7.1", "0.9.0"),
    ),
    "groups": (
        "[dependency-groups]\na = ['peft==0.7.1']\nb = [{include-group = 'a'}, 'torch']",
        exactly("0.7.1"),
    ),
    "bare and group": (
        "[project]\ndependencies = ['peft']\n[dependency-groups]\na = ['peft==0.7.1']",
        exactly("0.7.1"),
    ),
    "bare": ("[project]\ndependencies = ['peft']", None),
    "pdm": ("[tool.pdm.dev-dependencies]\na = ['peft==0.7.1']", exactly("0.7.1")),
    "pdm editable": (
        (
            "[project]\ndependencies = ['peft>=0.7']\n"
            "[tool.pdm.dev-dependencies]\na = ['-e file:///${PROJECT_ROOT}/peft#egg=peft']"
        ),
        None,
    ),
    "uv": ("[tool.uv]\ndev-dependencies = ['peft==0.7.1']", exactly("0.7.1")),
    "uv source": (
        (
            "[project]\ndependencies = ['peft>=0.7']\n"
            "[tool.uv.sources]\npeft = {git = 'https://github.com/huggingface/peft'}"
        ),
        None,
    ),
    "uv tag": (
        (
            "[project]\ndependencies = ['peft']\n"
            "[tool.uv.sources]\npeft = {git = 'https://a.example/peft', tag = 'v0.7.1'}"
        ),
        exactly("0.7.1"),
    ),
    "uv index": (
        "[project]\ndependencies = ['peft==0.7.1']\n[tool.uv.sources]\npeft = {index = 'mirror'}",
        exactly("0.7.1"),
    ),
    "uv workspace": (
        (
            "[project]\ndependencies = ['peft==0.7.1']\n"
            "[tool.uv.sources]\npeft = [{workspace = true, marker = 'a'}, {index = 'b'}]"
        ),
        None,
    ),
    "poetry": ("[tool.poetry.dependencies]\npeft = '^0.7'", (">=0.7,<0.8", "0.7.0", "0.7.1")),
    "poetry name": ("[tool.poetry.dependencies]\nPEFT = '0.7.1'", exactly("0.7.1")),
    "poetry table": (
        "[tool.poetry.dependencies]\npeft = {version = '~0.7.1', extras = ['a']}",
        (">=0.7.1,<0.8", "0.7.1", "0.7.1"),
    ),
    "poetry several": (
        (
            "[tool.poetry.dependencies]\npeft = [{version = '0.7.1', python = '<3.9'}, "
            "{version = '0.9.0', python = '>=3.9'}]"
        ),
        ("0.7.1 to 0.9.0", "0.7.1", "0.9.0"),
    ),
    "poetry group": ("[tool.poetry.group.a.dependencies]\npeft = '0.7.1'", exactly("0.7.1")),
    "poetry old": ("[tool.poetry.dev-dependencies]\npeft = '0.7.1'", exactly("0.7.1")),
    "poetry git": ("[tool.poetry.dependencies]\npeft = {git = 'https://a.example/peft.git'}", None),
    "poetry tag": (
        "[tool.poetry.dependencies]\npeft = {git = 'https://a.example/peft.git', tag = 'v0.7.1'}",
        exactly("0.7.1"),
    ),
    "poetry wheel": (
        "[tool.poetry.dependencies]\npeft = {path = 'wheels/peft-0.7.1-py3-none-any.whl'}",
        exactly("0.7.1"),
    ),
    "poetry path": ("[tool.poetry.dependencies]\npeft = {path = '../peft', develop = true}", None),
    "pixi": ("[tool.pixi.dependencies]\npeft = '0.7.*'", ("==0.7.*", "0.7.0", "0.7.1")),
    "pixi build": (
        "[tool.pixi.dependencies]\npeft = {version = '==0.7.1', build = 'py*'}",
        exactly("0.7.1"),
    ),
    "pixi pypi": (
        "[tool.pixi.pypi-dependencies]\npeft = '>=0.7, <0.9'",
        (">=0.7,<0.9", "0.7.0", "0.8.2"),
    ),
    "pixi feature": (
        "[tool.pixi.feature.gpu.target.linux-64.pypi-dependencies]\npeft = '==0.7.1'",
        exactly("0.7.1"),
    ),
    "pixi star": ("[tool.pixi.dependencies]\npeft = '*'", None),
    "other tools": ("[tool.peft]\nversion = '0.7.1'", None),
    "wrong shapes": (
        (
            "dependency-groups = 'peft'\n[project]\ndependencies = 'peft==0.7.1'\n"
            "optional-dependencies = ['peft==0.7.1']\n[tool]\nuv = 3\npixi = ['peft']\n"
            "[tool.poetry]\ndependencies = 'peft'\ngroup = [1]\n"
            "[tool.pdm]\ndev-dependencies = {a = 1}"
        ),
        None,
    ),
    "wrong values": (
        (
            "[project]\ndependencies = [1, {}, 'peft', 'peft!!']\n"
            "[tool.poetry.dependencies]\npeft = [3, true, 'banana', {version = 4}]"
        ),
        None,
    ),
}


@pytest.mark.parametrize("case", PROJECTS)
def test_projects_are_read(project: Path, case: str) -> None:
    text, expected = PROJECTS[case]
    write(project / "pyproject.toml", f"{text}\n")
    assert bounds(peft(project)) == expected


# From Poetry's documentation of its constraints, with the bounds that it gives for each.
POETRY = {
    "^1.2.3": ">=1.2.3,<2",
    "^1.2": ">=1.2,<2",
    "^1": ">=1,<2",
    "^0.2.3": ">=0.2.3,<0.3",
    "^0.0.3": ">=0.0.3,<0.0.4",
    "^0.0": ">=0.0,<0.1",
    "^0": ">=0,<1",
    "~1.2.3": ">=1.2.3,<1.3",
    "~1.2": ">=1.2,<1.3",
    "~1": ">=1,<2",
    "*": "",
    "1.*": "==1.*",
    "1.2.*": "==1.2.*",
    ">= 1.2.0": ">=1.2.0",
    ">=1.2 <1.5": ">=1.2,<1.5",
    ">= 1.2, < 1.5": ">=1.2,<1.5",
    "!= 1.2.3": "!=1.2.3",
    "=1.2.3": "==1.2.3",
    "~=1.2": "~=1.2",
    "1.2.3": "==1.2.3",
}


@pytest.mark.parametrize("constraint", POETRY)
def test_poetry_constraints_have_the_documented_bounds(constraint: str) -> None:
    from lora_lint.environment.pyproject import poetry_specifiers

    assert poetry_specifiers(constraint) == [POETRY[constraint]]


def test_poetry_alternatives_are_several() -> None:
    from lora_lint.environment.pyproject import poetry_specifiers

    assert poetry_specifiers("^0.7 || 0.9.0") == [">=0.7,<0.8", "==0.9.0"]


# Which source counts ------------------------------------------------------------------------------

ORDER = {
    "uv.lock": '[[package]]\nname = "peft"\nversion = "0.6.0"\n',
    "poetry.lock": '[[package]]\nname = "peft"\nversion = "0.7.0"\n',
    "pdm.lock": '[[package]]\nname = "peft"\nversion = "0.7.1"\n',
    "pixi.lock": "packages:\n- kind: conda\n  name: peft\n  version: 0.8.0\n",
    "requirements.txt": "peft==0.8.2\n",
    "requirements-a.txt": "peft==0.9.0\n",
    "requirements_train.txt": "peft==0.10.0\n",
    "requirements/base.txt": "peft==0.21.2\n",
    "requirements/train.txt": "peft==0.21.3\n",
    "environment.yml": "dependencies: [peft==0.21.4]\n",
    "environment.yaml": "dependencies: [peft==0.21.5]\n",
    "pyproject.toml": "[project]\ndependencies = ['peft==0.21.6']\n",
}


@pytest.mark.parametrize("name", ORDER)
def test_sources_are_believed_in_order(project: Path, name: str) -> None:
    names = list(ORDER)
    for other in names[names.index(name) :]:
        write(project / other, ORDER[other])
    install(project / ".venv", "peft", "0.6.0")
    found = peft(project)
    assert found is not None
    assert found.source == name
    assert found.version in ORDER[name]


def test_the_nearest_folder_wins_for_each_package(project: Path) -> None:
    write(project / "uv.lock", UV_LOCK)
    write(project / "a" / "requirements.txt", "peft==0.9.0\n")
    folder = project / "a" / "b"
    folder.mkdir()
    assert find_environment(folder, RELEASES) == (
        Version("0.9.0", "../requirements.txt"),
        Version("4.40.0 to 5.0.0", "../../uv.lock", "4.40.0", "5.0.0"),
    )


def test_a_bare_name_is_passed_over(project: Path) -> None:
    write(project / "a" / "requirements.txt", "peft\n")
    write(project / "pyproject.toml", "[project]\ndependencies = ['peft']\n")
    install(project / ".venv", "peft", "0.9.0")
    assert peft(project / "a") == Version("0.9.0", "../.venv")
    write(project / "other" / "requirements.txt", "peft\n")
    write(project / "other" / "poetry.lock", POETRY_LOCK)
    assert peft(project / "other") == Version("0.7.1", "poetry.lock")


@pytest.mark.parametrize("worktree", [False, True])
def test_the_search_ends_at_the_repository(tmp_path: Path, worktree: bool) -> None:
    write(tmp_path / "requirements.txt", "peft==0.7.1\n")
    install(tmp_path / ".venv", "peft", "0.7.1")
    root = tmp_path / "repository"
    folder = root / "configs"
    folder.mkdir(parents=True)
    if worktree:
        write(root / ".git", "gitdir: ../elsewhere\n")
    else:
        (root / ".git").mkdir()
    assert peft(folder) is None


def test_without_a_repository_the_first_folder_that_says_something_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "requirements.txt", "peft==0.7.1\ntransformers==4.40.0\n")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    assert peft(folder) == Version("0.7.1", "../../requirements.txt")
    other = write(tmp_path / "c" / "requirements.txt", "peft==0.9.0\n").parent
    assert find_environment(other, RELEASES) == (Version("0.9.0", "requirements.txt"), None)


def test_the_search_never_leaves_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path / "requirements.txt", "peft==0.7.1\n")
    home = tmp_path / "home"
    (home / "configs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert peft(home / "configs") is None


def test_links_are_followed_to_the_project(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write(project / "requirements.txt", "peft==0.7.1\n")
    (project / "configs").mkdir()
    link = tmp_path_factory.mktemp("elsewhere") / "configs"
    link.symlink_to(project / "configs")
    assert peft(link) == Version("0.7.1", "../requirements.txt")


def test_a_relative_folder_will_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project / "requirements.txt", "peft==0.7.1\n")
    (project / "a").mkdir()
    monkeypatch.chdir(project)
    assert peft(Path("a")) == Version("0.7.1", "../requirements.txt")
    assert peft(Path("not/there")) == Version("0.7.1", "../../requirements.txt")


# What is installed --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".venv", "venv"])
@pytest.mark.parametrize("lib", ["lib/python3.12", "Lib"])
def test_an_environment_beside_the_config_is_read(project: Path, name: str, lib: str) -> None:
    install(project / name, "peft", "0.7.1", lib)
    install(project / name, "transformers", "4.41.0.dev0", lib)
    install(project / name, "peft_extras", "3.0", lib)
    (project / "a").mkdir()
    assert find_environment(project / "a", RELEASES) == (
        Version("0.7.1", f"../{name}"),
        Version("4.41.0.dev0", f"../{name}"),
    )


def test_files_win_over_what_is_installed(project: Path) -> None:
    install(project / ".venv", "peft", "0.7.1")
    install(project / ".venv", "transformers", "5.0.0")
    write(project / "requirements.txt", "peft==0.9.0\n")
    assert find_environment(project, RELEASES) == (
        Version("0.9.0", "requirements.txt"),
        Version("5.0.0", ".venv"),
    )


def test_the_active_environment_is_last(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = tmp_path_factory.mktemp("active")
    install(active, "peft", "0.7.1")
    install(active, "transformers", "4.40.0")
    install(project / ".venv", "transformers", "5.0.0")
    monkeypatch.setenv("VIRTUAL_ENV", str(active))
    assert find_environment(project, RELEASES) == (
        Version("0.7.1", "$VIRTUAL_ENV"),
        Version("5.0.0", ".venv"),
    )


def test_the_linters_own_environment_is_no_evidence(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / ".venv"
    install(own, "peft", "0.7.1")
    link = tmp_path / "link"
    link.symlink_to(own)
    monkeypatch.setenv("VIRTUAL_ENV", str(link))
    monkeypatch.setattr(sys, "prefix", str(own))
    assert peft(project) is None
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "other"))
    assert peft(project) == Version("0.7.1", ".venv")


def test_a_distribution_without_metadata_is_none(project: Path) -> None:
    site = project / ".venv" / "lib" / "python3.12" / "site-packages"
    (site / "peft-0.7.1.dist-info").mkdir(parents=True)
    write(site / "transformers-4.40.0.dist-info" / "METADATA", b"\xff\x00\n\nVersion: 4.40.0\n")
    assert find_environment(project, RELEASES) == (None, None)


# Broken files -------------------------------------------------------------------------------------

NAMES = [*(name for name in ORDER if "/" not in name), "requirements/base.txt"]
BROKEN = {
    "empty": b"",
    "binary": bytes(range(256)) * 8 + b"\npeft\n",
    "deep": b'name = "peft"\nx = ' + b"[" * 100_000,
    "open": b'[[package]]\nname = "peft"\nversion = "0.7.\n',
    "twice": b'[[package]]\nname = "peft"\nname = "peft"\n',
    "conflict": b'[[package]]\nname = "peft"\n<<<<<<< HEAD\nversion = "0.7.1"\n=======\n',
    "yaml": b"dependencies: [peft==0.7.1\n",
    "tabs": b"dependencies:\n\t- peft==0.7.1\n",
    "scalar": b"dependencies: peft==0.7.1\n",
    "tagged": b"dependencies: !!python/object/apply:os.getcwd [peft]\n",
    "self": b"dependencies: &a [*a, {pip: *a}]\n",
    "list": b"- dependencies\n",
    "odd version": b'[[package]]\nname = "peft"\nversion = ["0.7.1"]\n',
    "endless": b'[tool.poetry.dependencies]\npeft = "^' + b"9" * 5000 + b'"\n',
    "endless in list": b'[project]\ndependencies = ["peft==0.7.1' + b" " * 5000 + b';"]\n',
    "endless in lock": b'[[package]]\nname = "peft"\nversion = "1!' + b"9" * 5000 + b'"\n',
    "endless line": b"peft==0.7.1" + b" " * 5000 + b"; x\n",
    "endless match": b"dependencies: ['peft 0.7.1"
    + b" " * 5000
    + b"b', pip: ['peft  "
    + b" " * 5000
    + b"==1']]\n",
    "endless constraint": b"[tool.poetry.dependencies]\npeft = {version = '"
    + b"^0.7" * 5000
    + b"'}\n",
    "no version": b'[[package]]\nname = "peft"\nversion = "banana"\n',
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("name", NAMES)
def test_a_broken_file_is_as_good_as_none(project: Path, name: str, case: str) -> None:
    write(project / "a" / name, BROKEN[case])
    write(project / "requirements.txt", "peft==0.9.0\n")
    assert peft(project / "a") == Version("0.9.0", "../requirements.txt")


@pytest.mark.parametrize("name", [*NAMES, "requirements", ".venv", "x/.git"])
def test_a_folder_in_place_of_a_file_and_back(project: Path, name: str) -> None:
    write(project / "requirements.txt", "peft==0.9.0\n")
    if name in ("requirements", ".venv"):
        write(project / "a" / name, "peft==0.7.1\n")
    else:
        (project / "a" / name).mkdir(parents=True)
    assert peft(project / "a") == Version("0.9.0", "../requirements.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "uv.lock")
    write(project / "requirements.txt", "-r \0\npeft==0.9.0\n")
    assert peft(project) == Version("0.9.0", "requirements.txt")


def test_what_may_not_be_read_is_passed_over(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions would not hold for root.
    write(project / "requirements.txt", "peft==0.9.0\n")
    folder = write(project / "a" / "uv.lock", UV_LOCK).parent

    def refuse_in_folder(name: str) -> None:
        look = getattr(Path, name)

        def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
            if folder in (path, *path.parents):
                raise PermissionError(13, "Permission denied", str(path))
            return look(path, *arguments, **options)

        monkeypatch.setattr(Path, name, refuse)

    for name in ("exists", "is_file", "is_dir", "stat", "read_bytes"):
        refuse_in_folder(name)
    assert peft(folder) == Version("0.9.0", "../requirements.txt")


def test_a_large_lock_file_is_read_fast(project: Path) -> None:
    filler = "".join(
        f'[[package]]\nname = "package-{n}"\nversion = "1.{n}"\nwheels = [\n'
        + f'    {{ url = "https://host.example/{n}-py3-none-any.whl", hash = "sha256:ab" }},\n' * 40
        + "]\n\n"
        for n in range(1000)
    )
    write(project / "uv.lock", filler + UV_LOCK.partition("\n\n")[2])
    start = time.perf_counter()
    assert peft(project) == Version("0.7.1", "uv.lock")
    # Parsing the whole file takes some twenty times as long.
    assert time.perf_counter() - start < 1


def test_the_search_loads_nothing_heavy(project: Path) -> None:
    """A project that names nothing costs a few looks; a lock file needs no packaging."""
    code = (
        "import sys; from pathlib import Path\n"
        "from lora_lint.environment import find_environment\n"
        f"find_environment(Path({str(project)!r}), {{'peft': ('0.7.1',), 'transformers': ()}})\n"
        "print(*sorted(m for m in ('packaging', 'yaml', 'tomllib', 'tomli') if m in sys.modules))\n"
    )

    def loaded() -> str:
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    write(project / "requirements.txt", "torch==2.13.0\n")
    assert loaded() == ""
    write(project / "requirements.txt", "peft==0.7.1\n")
    assert loaded() == ""
    write(project / "pixi.lock", "packages:\n- kind: conda\n  name: peft\n  version: 0.7.1\n")
    assert loaded() == ""
