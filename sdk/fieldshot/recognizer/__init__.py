"""Enrol, recognise, reject, forget, undo: the join of backbone, gallery and head."""

from __future__ import annotations

from fieldshot.recognizer.model import Recognition
from fieldshot.recognizer.recognizer import EnrollResult, Recognizer
from fieldshot.recognizer.report import Report

__all__ = ["EnrollResult", "Recognition", "Recognizer", "Report"]
