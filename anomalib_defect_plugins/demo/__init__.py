"""The demo: a Gradio app to browse results, inspect images, train from one photo and make defects.

Importing this costs nothing; ``app`` needs Gradio (``pip install anomalib-defect-plugins[demo]``).
"""
