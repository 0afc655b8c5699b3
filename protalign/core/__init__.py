"""Values and small tools that every room uses. Imports nothing else of ProtAlign."""
