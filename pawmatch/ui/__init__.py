"""The page and its API: present, handlers, layout, endpoints, server; each imports only those before it."""

import os

# Read by gradio when it is imported, which every way to here still has to do: nothing is reported home.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
