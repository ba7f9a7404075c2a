"""How the studio is seen: a page in the browser, served from this machine.

In: what `core` and `workspace` tell. Out: a FastAPI app with a small JSON interface and Gradio's page mounted in it.
The page never trains and never loads a model: importing this wing brings neither torch, transformers nor datasets. It
knows runs by their id and an offset into their events, nothing else, so a reload and a restart are the same case.
"""
