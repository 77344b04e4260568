"""Caption sets, pretraining text, the tokenizer, support sets and batches."""
