"""What was enrolled: labelled embeddings in one SQLite file, with a history that loses nothing.

Samples are only ever added. An operation (enroll, reject, forget, undo, rollback) is one transaction
that records which samples it brings to life (+1) and which it retires (-1); the live samples are those
whose deltas sum to 1. So undo applies the inverse of an operation, rollback the difference to any
version, and both are operations themselves. After a power cut the file opens at the last operation
that had returned.
"""

from __future__ import annotations

from fieldshot.gallery.samples import MAX_LABEL, Operation, Sample, Snapshot, clean_label
from fieldshot.gallery.store import Gallery

__all__ = ["MAX_LABEL", "Gallery", "Operation", "Sample", "Snapshot", "clean_label"]
