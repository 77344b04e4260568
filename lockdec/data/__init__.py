"""Caption sets, pretraining text, the tokenizer and support sets."""
