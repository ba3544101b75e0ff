"""Reading a base model's config.json, which may be anybody's file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The largest honest ones hold 20,000 labels in 2 MB; a module tree of a model with 80,000 distinct
# modules has 8 MB.
MAX_BYTES: Final = 16 * 2**20
MISSING: Final = object()
_DTYPES: Final = ("bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")


class UnreadableError(Exception):
    """A file that can't be read or is not what its name says; the reason for people."""


class ConfigFile(NamedTuple):
    """A config.json: what it says of the model's architecture, and its values by dotted path."""

    values: Mapping[str, Any]

    @property
    def model_type(self) -> str | None:
        """The model type, None where the file does not say it."""
        value = self.values.get("model_type")
        return value if isinstance(value, str) else None

    @property
    def architecture(self) -> str | None:
        """The first of ``architectures``."""
        names = self.values.get("architectures")
        first = names[0] if isinstance(names, list) and names else None
        return first if isinstance(first, str) else None

    @property
    def remote_code(self) -> bool:
        """Whether the repository brings code of its own (``auto_map``)."""
        return bool(self.values.get("auto_map"))

    @property
    def dtype(self) -> str | None:
        """The dtype of the published weights, None where the file says none that torch has."""
        value = self.values.get("dtype") or self.values.get("torch_dtype")
        name = value.removeprefix("torch.") if isinstance(value, str) else None
        return name if name in _DTYPES else None

    @property
    def quantization(self) -> str | None:
        """How the published weights are held: ``nf4``, ``fp4`` or ``int8`` by bitsandbytes, else
        the method's name (``fp8``, ``gptq``); None where they are not quantized.
        """
        found = self.get("quantization_config")
        if found is MISSING:
            found = self.get("text_config.quantization_config")
        if not isinstance(found, dict):
            return None
        if found.get("load_in_4bit") is True:  # transformers 5.23 utils/quantization_config.py
            return "nf4" if found.get("bnb_4bit_quant_type") == "nf4" else "fp4"
        if found.get("load_in_8bit") is True:
            return "int8"
        method = found.get("quant_method") or found.get("quant_algo")
        return method.lower() if isinstance(method, str) else "quantized"

    def get(self, path: str) -> Any:
        """The value at a dotted path, ``MISSING`` where there is none.

        A multimodal config of before transformers 4.52 has the text model's fields at the top;
        transformers reads both forms.
        """
        steps = path.split(".")
        if steps[0] == "text_config" and "text_config" not in self.values:
            steps = steps[1:]
        value: Any = self.values
        for step in steps:
            if not isinstance(value, dict) or step not in value:
                return MISSING
            value = value[step]
        return value

    def agrees(self, known: Mapping[str, Any]) -> bool:
        """Whether all fields that decide a model's shapes have the values of a known model
        (``dimensions.json.z``); what is left out or null counts as the value the class then takes.
        """
        for path, expected in known["values"].items():
            value = self.get(path)
            if value is MISSING:
                if path not in known["absent"]:
                    return False
            elif value is None and expected is not None:
                if path not in known["null"]:
                    return False
            elif value != expected:
                return False
        return True

    def deviating(self, switches: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The switches of an architecture that this config sets otherwise than the default."""
        for path, switch in switches.items():
            value, default, rule = self.get(path), switch["default"], switch["rule"]
            if value is MISSING:
                continue
            same = {
                "none": (value is None) == (default is None),
                "zero": bool(value) == bool(default),
                "value": value == default,
            }
            if not same.get(rule, False):
                yield switch


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises ``UnreadableError`` where there is none, with the reason.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else f"not JSON ({exc})"
        raise UnreadableError(f"{path} is {why}") from exc
    if not isinstance(value, dict):
        raise UnreadableError(f"{path} is not a JSON object")
    return value


def read_text(path: Path) -> str:
    """The text of a regular file of bearable size.

    Raises ``UnreadableError`` with the reason.
    """
    try:
        if not path.is_file():  # a pipe or a device would block
            raise UnreadableError(f"{path} is not a file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UnreadableError(f"{path} has more than {MAX_BYTES // 2**20} MiB")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UnreadableError(f"{path} is not UTF-8 text") from exc
    except (OSError, ValueError) as exc:  # ValueError: a null character in the name
        raise UnreadableError(f"{path} can't be read: {exc}") from exc
