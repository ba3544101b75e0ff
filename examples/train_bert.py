"""A classifier whose new head would stay random: PEFT is not told that it is one."""

from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

r = 8

model = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased", num_labels=3)
config = LoraConfig(r=r, lora_alpha=2 * r, target_modules=["query", "value"])
model = get_peft_model(model, config)
model.print_trainable_parameters()
