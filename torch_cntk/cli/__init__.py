"""The command ``torch-cntk``; see ``torch_cntk.cli.main``."""
