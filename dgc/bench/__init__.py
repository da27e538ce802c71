"""Side-by-side measurements: the project against dense networks in other engines, static groups and
the masked way.
"""
