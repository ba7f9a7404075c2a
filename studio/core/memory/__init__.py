"""Where a training step's memory goes, worked out without torch:

    memory/
    ├── tape.py         tensors that have only a size; a backward pass over them
    ├── ops.py          the operations a transformer is made of: what each allocates, and keeps for its backward
    ├── practice.py     what the libraries of a day do, and what a run does with them
    ├── run.py          a step's circumstances: batch, number formats, what is trained
    ├── linear.py       linear layers: plain, quantized, with LoRA
    ├── norms.py attention.py feedforward.py layer.py      one decoder layer
    ├── heads.py        logits and loss, in each way they are computed
    ├── litgpt.py       LitGPT's own model and loss
    ├── state.py        what lies there all the time: weights, adapter, optimizer
    ├── step.py         one step: forward, loss, backward, optimizer, and the peak of each
    ├── allocator.py replay.py      CUDA's caching allocator, and a step put through it
    └── advice.py       what would take less

In: a ModelShape and a RunConfig. Out: bytes. Knows no torch, no device but by its generation.
"""
