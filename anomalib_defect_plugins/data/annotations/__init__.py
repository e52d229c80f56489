"""Annotations of labelling tools: COCO, LabelMe, CVAT, YOLO, Pascal VOC and Label Studio.

Each format is a module that parses its files into :class:`~.regions.AnnotatedImage`; ``reader`` finds the images.
"""
