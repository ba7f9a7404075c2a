"""Rows, from wherever they lie to what a model is trained on.

In: a DatasetInput. Out: rows by page, findings, pictures, prepared tensors; each in the module named after it. What
can be computed again is kept under $STUDIO_HOME/cache/data. Knows no window; never runs code that came with data.
"""
