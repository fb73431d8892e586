"""One module per command: SUMMARY and EPILOG for its help, `add_arguments`, and `run` -> exit code.

Imported whenever the program starts, so a module here imports torch and the like only inside `run`.
"""
