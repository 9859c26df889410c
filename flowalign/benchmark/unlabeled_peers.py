"""Peers that learn from unlabelled rows."""

UNLABELED: dict = {}
