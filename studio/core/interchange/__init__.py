"""run.yaml to and from the config files of other programs: LLaMA-Factory, Axolotl, TRL's command line.

    interchange/
    ├── carried.py        what was carried over and what was not; tables of names that mean the same
    ├── llamafactory/   axolotl/   trl/         one program each: its names, read, write
    └── programs.py       which program a file is for, and both ways through one door

In: the mapping in such a file, or a RunConfig. Out: a partial run.yaml or such a mapping, and a sentence for every key
that has no counterpart; nothing is dropped in silence. Names and defaults are those the programs document. Knows no
files.
"""
