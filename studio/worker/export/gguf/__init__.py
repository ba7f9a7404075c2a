"""GGUF, the format of llama.cpp, Ollama and LM Studio: one file with weights, tokenizer, template and metadata.

In: a stream of a model's tensors, its config, its tokenizer. Out: a file, or a refusal for what isn't known well enough
to be written right.
"""
