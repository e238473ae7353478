"""What runs in the process that is measured.

The files of the side that is newer measure both sides, so these modules import one another by relative names only, and
of `fieldshot`, which is that of the side measured, nothing but what its users may call (`fieldshot.bench.workers` loads
them).
"""
