"""The transformer, written from scratch. It imports nothing of lockdec's other folders but the errors.

To be read in this order: attention, positional, layers, models, generation, huggingface.
"""
