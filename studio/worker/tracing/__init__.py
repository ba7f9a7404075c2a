"""A training step run on tensors that have a shape and no numbers, to see what it would allocate on a graphics card.

    recorder.py    what every operation allocates and when it is released, as `core.memory.tape` writes it down
    standins.py    kernels that only exist on a graphics card, allocating the same buffers
    losses.py      the loss, in each way it is computed
    build.py       the real model class, quantized, with PEFT's adapter, in a few of its layers

In: a config.json, a RunConfig. Out: events. Knows no device and no weights.
"""
