"""Inference libraries behind one face (`base`), found by name (`registry`)."""
