"""What a run is: its config, its files, its events, its errors.

In: plain dicts, lines, bytes. Out: validated values. Knows the standard library, pydantic and pyyaml; it starts no
process, opens no connection, and has never heard of torch or Gradio.
"""
