"""The workflow in a browser, on trame-slicer: Slicer's own scene, views and segment editor, streamed to a web page.

`python -m APFormerSlicerLib.web` is the front: it lets users in, starts one process for each user, and passes their
requests on (front.py, sessions.py, proxy.py, turns.py). The user's process (`session.py`) holds one scene and its
`workflow`, and draws the page (page.py; a file per section). Nothing is loaded by importing this room.
"""
