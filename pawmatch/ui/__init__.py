"""The pages and their API.

From the bottom up: request_log, inference, html, handlers; gradio_patches, api, page, compare; middleware,
theme, server.
"""

import os

# Read by gradio and by the Hub's library when they are imported, which every way to here still has to do:
# nothing is reported home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Xet downloads over connections of its own, to which the Hub's time limits do not reach.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
# After each request, gradio would sum up the last 10,000 for a page that is switched off here: with pandas,
# and in time that grows with their number.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
