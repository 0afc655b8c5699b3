"""The store's files: layout, state, arrays, texts and locks."""
