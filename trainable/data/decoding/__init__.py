"""Decodes image files to pixels, in separate processes where that pays."""
