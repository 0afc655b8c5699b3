"""An HTTP server over vectors, a model and a store: search, alignments, embeddings, and a page.

It needs ``pip install "protalign[serve]"``.
"""
