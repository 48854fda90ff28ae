"""The page of ``torch-cntk app``: repair a photograph in a browser.

What a page does is in plain functions (``session``, ``strokes``, ``repair``, ``work``) that know nothing of gradio, the
library that shows it; only ``page`` imports that: ``pip install 'torch-cntk[app]'``.
"""
