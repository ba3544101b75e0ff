"""PEFT's longer messages, word for word (peft 0.21.2), so that users recognise what they would
see.
"""

NO_MATCH = (
    "Target modules {targets} not found in the base model. Please check the target modules and try "
    "again."
)
ALL_EXCLUDED = (
    "All modules were excluded. This is likely unintended. Check your `target_modules`, "
    "`exclude_modules` and `modules_to_save` configuration."
)
ALL_LINEAR_CUSTOM = "Only instances of PreTrainedModel support `target_modules='all-linear'`"
NOTHING_PASSED = (
    "No `target_modules` passed but also no `target_parameters` found. Please check the values for "
    "these arguments."
)
NOTHING_TARGETED = (
    "No modules were targeted for adaptation. This might be caused by a combination of mismatched "
    "target modules and excluded modules. Please check your `target_modules` and `exclude_modules` "
    "configuration. You may also have only targeted modules that are marked to be saved "
    "(`modules_to_save`)."
)
NOTHING_EXCLUDED = (
    "You have passed exclude_modules={value} but no modules were excluded. Please check that "
    "exclude_modules was set correctly."
)
UNSUPPORTED = (
    "Target module {cls}() is not supported. Currently, only the following modules are supported: "
    "`torch.nn.Linear`, `torch.nn.Embedding`, `torch.nn.Conv1d`, `torch.nn.Conv2d`, "
    "`torch.nn.Conv3d`, `transformers.pytorch_utils.Conv1D`, `torch.nn.MultiheadAttention.`."
)
PATTERNS_UNMATCHED = (
    "The following {field} keys did not match any targeted module and were ignored: {keys}."
)
TARGETED_PARAMETER = (
    "Trying to wrap an `nn.Parameter` of layer '{name}' of type {cls}, which is not a valid "
    "target. Make sure that this layer is not also targeted with `target_modules`. For some "
    "models, PEFT will do this automatically, try setting `target_modules=[]` to prevent it."
)
PARAMETER_DIMENSIONS = (
    "lora.ParamWrapper was initialized with {count} dimensional Parameter, but only 2d and 3d are "
    "supported."
)
FUSED_APART = (
    "Cannot convert PEFT target(s) {given} without also targeting {missing} because they are fused "
    "into {fused}."
)
TIED_NOT_ENSURED = (
    "Model has `tie_word_embeddings=True` and a tied layer is part of the adapter, but "
    "`ensure_weight_tying` is not set to True. This can lead to complications, for example when "
    "merging the adapter or converting your model to formats other than safetensors. Check the "
    "discussion here: https://github.com/huggingface/peft/issues/2777"
)
NOTHING_TIED = (
    "You have requested `ensure_weight_tying`, but no tied modules were found in the model"
)
TIED_NOT_ADDED = (
    "You have requested `ensure_weight_tying`, but no tied modules are added in either "
    "`modules_to_save` or `target_modules`"
)
TOKENS_NOT_TIED = (
    "ensure_weight_tying=True but the model does not have tied weights "
    "(tie_word_embeddings=False). Weight tying will not be applied for trainable_token_indices."
)
LORA_BIAS_INIT = (
    "The argument lora_bias=True is only supported with init_lora_weights=True or False, got "
    "init_lora_weights={init} instead."
)
LORA_BIAS_UNMERGEABLE = (
    "`lora_bias=True` was passed but the targeted layer of type {cls} has no bias. This means that "
    "merging LoRA weights won't be possible."
)
TOKENS_DIFFER = (
    "Cannot ensure weight tying when different token indices are specified for tied layers."
)
SIZE_NOT_INT = (
    "empty(): argument 'size' (position 1) must be tuple of ints, but found element of type {kind} "
    "at pos 0"
)
