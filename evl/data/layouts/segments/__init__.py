"""Layouts whose rows are segments: parts of videos, with labels, as tools for labeling export them.

Each module is a layout (``evl.data.layouts``), but its ``read`` returns ``Segments``.
"""
