"""The transformer from scratch. Of the rest of lockdec, it imports only the errors.

Read it in this order:

    masks            which positions a query may attend to
    attention        scaled dot products, multi-head attention, self-attention
    gates            how unlocked cross-attention starts
    cross_attention  cross-attention that can be locked
    positional       tokens, positions, and the way back to logits
    sublayers        add-and-norm, feed-forward networks
    places           where a decoder layer may have cross-attention, locked until then
    layers           encoder and decoder layers, stacks of them
    decoding/        from predictions of the next token to sequences: greedy, sampling, beam search, caches
    autoregressive   what all decoders share: hidden states, logits, generation
    plugs            cross-attention of several encoders on one decoder, by name
    bridge           what may carry an encoder's states beside cross-attention, or in its place
    locking          the decoder that can be locked
    models           whole models: encoder, decoder, translator; all models can be imported from here
    importing/       decoders that others pretrained
    hosting          decoders of transformers, kept as they are

`configuration` holds the sizes and choices as plain data, `encoded` is what encoders hand to decoders, and `fast/` is
what is fast and not needed to understand the rest.
"""
