"""One file a method, ``<slug>.py`` with underscores, holding one function of that name.

``adapter(quantity, inputs, params) -> dict``: see ``helpers.py`` beside this folder. A slug without a file is
reported as missing by the harness and by ``python -m cl_teach.survey``.
"""
