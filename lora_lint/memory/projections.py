"""Linear maps as PEFT and bitsandbytes run them, on a tape.

Sources: peft 0.21.2 tuners/lora/layer.py ``Linear.forward`` and ``ParamWrapper``,
tuners/lora/bnb.py ``Linear4bit.forward`` and ``Linear8bitLt.forward``, tuners/lora/dora.py
``DoraLinearLayer.forward``, tuners/tuners_utils.py ``_cast_input_dtype``; bitsandbytes 0.50
nn/modules.py ``Linear4bit.forward``, autograd/_functions.py ``MatMul4Bit`` and ``MatMul8bitLt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_lint.memory.tape import ONE, RANK, Leaf, Storage, Tape, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.memory.regime import Run
    from lora_lint.memory.shape import Linear


class Projections:
    """The linear maps of one layer, with the adapters on them.

    ``ranks`` goes by name within the layer, in multiples of the tape's rank. ``leaves`` are the
    trained parameters met.
    """

    def __init__(self, tape: Tape, run: Run, ranks: Mapping[str, int]) -> None:
        self.tape, self.run, self.ranks = tape, run, ranks
        self.leaves: list[Leaf] = []

    def leaf(self) -> Leaf:
        """A trained parameter."""
        leaf = Leaf()
        self.leaves.append(leaf)
        return leaf

    def __call__(self, x: Tensor, linear: Linear) -> Tensor:
        """The map with its adapter, if it has one."""
        result = self._base(x, linear)
        r = self.ranks.get(linear.name)
        if r is None:
            return result
        quantized = self.run.quantized if linear.quantized else None
        width = result.width
        if quantized and self.run.quantized != "int8":
            result = self.tape.copy(result)  # PEFT clones, lest a view be written to
        converts = not (quantized and self.run.autocast)
        if converts:
            x = self.tape.cast(x, self.run.adapter_bytes)
        if self.run.dora:
            result = self._dora(x, result, linear, r)
            return self.tape.cast(result, width) if converts else result
        if self.run.dropout:
            x = self.tape.dropout(x)
        output = self.tape.scale(self._low(x, linear, r))
        if quantized and converts:
            output = self.tape.cast(output, width)
        result = self.tape.add(result, output)
        return self.tape.cast(result, width) if converts else result

    def trained(self, x: Tensor, linear: Linear, width: int) -> Tensor:
        """A map whose own weight is trained."""
        return self.tape.linear(x, linear.d_in, linear.d_out, width, weight=self.leaf())

    def _low(self, x: Tensor, linear: Linear, r: int) -> Tensor:
        width = self.run.adapter_bytes
        low = self.tape.low(x, linear.d_in, r, width, self.leaf())
        return self.tape.high(low, r, linear.d_out, width, self.leaf())

    def _base(self, x: Tensor, linear: Linear) -> Tensor:
        if self.run.quantized == "int8" and linear.quantized:
            return self._eight_bit(x, linear)
        if self.run.quantized and linear.quantized:
            return self._four_bit(x, linear)
        return self.tape.linear(x, linear.d_in, linear.d_out, self.run.plain_bytes)

    def _four_bit(self, x: Tensor, linear: Linear) -> Tensor:
        """In 16 bit, and back to the input's type. The packed weight is all that is kept; the
        backward makes the weight in 16 bit. Before bitsandbytes 0.43.2 the product also referred
        to its input, from its context and not as a saved tensor, so that it lived as long as the
        graph (0.42.0 autograd/_functions.py ``MatMul4Bit``; its commit 9e753741).
        """
        tape, width, values = self.tape, x.width, linear.d_in * linear.d_out
        x = tape.cast(x, 2)
        out = (x.unit, x.count / linear.d_in * linear.d_out, 2)
        if self.run.keeps_inputs and x.node is not None:
            tape.held.append(x.storage)
        kept = (x.storage,) if self.run.keeps_inputs else ()
        y = tape.result((x,), out, kept, needs=((ONE, 2 * values),))
        return tape.cast(y, width)

    def _eight_bit(self, x: Tensor, linear: Linear) -> Tensor:
        """The product refers to its input from its context, not as a saved tensor: checkpointing
        does not see it, and it lives as long as the graph. The forward makes a 16-bit copy and one
        byte a value of the input, and the product in int32.
        """
        tape, values = self.tape, linear.d_in * linear.d_out
        if x.node is not None:
            tape.held.append(x.storage)
        half = tape.scratch(x.unit, 2 * x.count) if x.width != 2 else None
        codes = tape.scratch(x.unit, x.count)
        del half
        count = x.count / linear.d_in * linear.d_out
        products = tape.scratch(x.unit, 4 * count)
        out = tape.result(
            (x,), (x.unit, count, x.width), (x.storage,), needs=((ONE, x.width * values),)
        )
        del codes, products
        return out

    def _dora(self, x: Tensor, result: Tensor, linear: Linear, r: int) -> Tensor:
        """DoRA scales both terms by a trained magnitude, and so keeps the base layer's output and
        lora_B's. It makes lora_B @ lora_A by an identity matrix, the weight in the input's type,
        and their sum for the norm of its columns. With dropout it computes the base layer's output
        again by that weight, which the gradient of its input needs.
        """
        tape, values = self.tape, linear.d_in * linear.d_out
        a, base = self.run.adapter_bytes, result
        if self.run.dropout:
            x = tape.dropout(x)
        width = x.width
        low = 2 if tape.autocast else a
        # The identity, of which the product's graph refers to autocast's copy.
        eyes = [tape.scratch(ONE, size * linear.d_in**2) for size in sorted({a, low})]
        between = tape.scratch(RANK, low * linear.d_in * r)
        product = tape.scratch(ONE, low * values)
        del eyes[1:]
        if low != width:
            product = tape.scratch(ONE, width * values)
        own = 2 if self.run.quantized and linear.quantized else self.run.plain_bytes
        weight: Storage | None = None
        copied = bool(self.run.quantized and linear.quantized)
        if copied:
            weight = tape.scratch(ONE, own * values)
        if own != width:
            weight, copied = tape.scratch(ONE, width * values), True
        scaled = tape.scratch(ONE, width * values)
        summed = tape.scratch(ONE, width * values)
        del scaled, summed
        output = self._low(x, linear, r)
        if not self.run.dropout:
            if linear.bias:
                base = tape.add(base, Tensor(ONE, 0, base.width, base.storage, None))
        else:
            base = tape.linear(x, linear.d_in, linear.d_out, width, copied=copied)
        del weight
        magnitude = self.leaf()
        one = tape.times_parameter(base, a, magnitude)
        two = tape.scale(tape.times_parameter(output, a, magnitude))
        both = tape.add(one, two)
        del eyes, between, product
        return tape.add(result, both)
