"""What a run does: loading, training, talking, exporting, in a process of its own.

In: a job folder, or requests on a pipe. Out: events, checkpoints, adapters, models. Knows core and the torch stack;
no Gradio, and never the workspace: the two meet in the job folder.
"""
