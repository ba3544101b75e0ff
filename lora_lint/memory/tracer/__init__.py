"""A real training step of the real model with real PEFT, followed tensor by tensor without a GPU.

On the meta device nothing is computed, but every operation runs and its result has a storage; the
bytes of all live storages give the peak. The rooms:

``storages``   counts the live bytes
``cuda``       what CUDA does otherwise than the meta device: attention kernels, dropout, autocast
``quantized``  bitsandbytes' layers, as far as memory goes
``step``       builds the model, hands it to PEFT, takes the steps
``__main__``   the subprocess: a request as JSON on stdin, the answer as JSON on stdout

Needs torch, transformers and peft (the extra ``live``); ``lora_lint.memory.trace`` calls it from a
process that has none of them imported.
"""
