"""ctypes, and nothing but ctypes: the only package that imports it.

One file per library, each a table of signatures; :mod:`.loader` opens them, :mod:`.errcheck` has one checker
per error convention. A missing required symbol or library is an error that names it.
"""
