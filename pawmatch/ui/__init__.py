"""The page and its API: present, handlers, layout, endpoints, server; each imports only those before it."""
