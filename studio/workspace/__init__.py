"""Where runs, models and datasets live, and who keeps watch over them.

In: a RunConfig, a click. Out: job folders, lists, the machine's figures. Knows core, psutil, pynvml, huggingface_hub
and pyarrow; no torch, no Gradio, and never the worker: the two meet in the job folder.
"""
